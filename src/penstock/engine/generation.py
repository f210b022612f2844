"""A submitted prompt, as the front process holds it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from penstock.engine.checks import refused
from penstock.engine.transcript import Transcript
from penstock.vocabulary.errors import PenstockError
from penstock.vocabulary.messages import Output, Request
from penstock.vocabulary.results import Delta

if TYPE_CHECKING:
    from penstock.engine.replica import Replica


class Generation:
    """One submitted prompt. Iterate over it for its deltas; cancel it when nobody wants them any
    more.
    """

    def __init__(
        self, request: Request, transcript: Transcript, replica: "Replica", *, wire_id: str
    ) -> None:
        """`wire_id` is what the engine calls the request."""
        self.request_id = request.request_id
        self.wire_id = wire_id
        self.num_sequences = request.sampling.n
        self._transcript = transcript
        self._replica = replica
        self._deltas: asyncio.Queue[Delta | PenstockError | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas until every completion has ended. Raises `EngineFailed` if the engine dies
        meanwhile.
        """
        try:
            while (delta := await self._deltas.get()) is not None:
                if isinstance(delta, PenstockError):
                    raise delta
                yield delta
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Free what the engine holds for this; no error if it has ended already."""
        self._replica.release(self, cancel=True)
        self._deltas.put_nowait(None)

    def add(self, output: Output) -> None:
        """The engine has said this of the request."""
        if output.refusal is not None:
            self._replica.release(self, cancel=False)
            self.fail(refused(output.refusal))
            return
        delta = self._transcript.add(output)
        if delta is None:
            return
        if delta.finish_reason is not None and output.finish_reason is None:
            self._replica.cancel(self, output.index)
        self._deltas.put_nowait(delta)
        if self._transcript.has_ended:
            self._replica.release(self, cancel=False)
            self._deltas.put_nowait(None)

    def fail(self, error: PenstockError) -> None:
        """Nothing more will come; whoever iterates is told why."""
        self._deltas.put_nowait(error)
