"""A replica: an engine process that is started again should it die, and the requests it holds."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import msgspec

from penstock.engine.engine_process import EngineProcess, failure
from penstock.engine.front_settings import FrontSettings
from penstock.engine.generation import Generation
from penstock.engine.placement import WHOLE
from penstock.engine.settings import OnProgress, Resolved
from penstock.engine.transcript import Transcript
from penstock.engine.wire import Failed, FromEngine, Ready, Start, Turn
from penstock.vocabulary.errors import EngineFailed, PenstockError
from penstock.vocabulary.messages import (
    Cancel,
    EngineStats,
    Output,
    Request,
    ResetPrefixCache,
    Step,
)

_LONGEST_PAUSE_S = 30.0

log = logging.getLogger("penstock")


class Replica:
    """One engine process and its successors.

    `load` counts the completions that run or wait in it, `ready` is what the newest process said of
    itself. `on_step` is told of every step, and `on_end` when a process has ended, and with it all
    that it had cached; both by the replica's number.
    """

    ready: Ready

    def __init__(
        self,
        start: Start,
        front: FrontSettings,
        on_step: Callable[[int, Step], None],
        on_end: Callable[[int], None],
    ) -> None:
        self.number = start.share.number
        self.stats = EngineStats()
        self.load = 0
        self._start = start
        self._front = front
        self._on_step = on_step
        self._on_end = on_end
        self._engine: EngineProcess | None = None
        self._generations: dict[str, Generation] = {}
        self._numbers = itertools.count()
        self._supervisor: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._finished_at: deque[float] = deque(maxlen=64)
        self._called = "engine process"
        if start.share != WHOLE:
            self._called += f" of replica {self.number}"

    @property
    def pid(self) -> int | None:
        """The engine's process, while there is one."""
        return self._engine.pid if self._engine else None

    @property
    def resolved(self) -> Resolved:
        return self.ready.resolved

    @property
    def num_requests(self) -> int:
        """Requests submitted and not finished."""
        return len(self._generations)

    @property
    def max_load(self) -> int:
        """Most completions that may run or wait at once."""
        return self.resolved.max_num_seqs + self._front.max_waiting

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the engine's loop last turned."""
        return time.monotonic() - self._heard_at

    @property
    def is_running(self) -> bool:
        """There is an engine to send to."""
        return self._engine is not None

    @property
    def is_ready(self) -> bool:
        """It answers, too."""
        return self.is_running and self.heartbeat_age_s < self._front.heartbeat_timeout_s

    def holds(self, request_id: str) -> bool:
        """Whether a request of this id is running or waiting."""
        return request_id in self._generations

    def retry_after_s(self) -> int:
        """When the queue will have moved on by as much as is waiting, at the pace of late."""
        times = self._finished_at
        if len(times) < 2 or times[-1] == times[0]:
            return 1
        rate = (len(times) - 1) / (times[-1] - times[0])
        return int(min(60, max(1, self.stats.num_waiting / rate)))

    # -- life ------------------------------------------------------------------------------------

    async def start(self, on_progress: OnProgress) -> None:
        """Load the model, and see to it from then on that there is an engine. Raises `ModelError`
        or `SettingsError` if that cannot be.
        """
        await self._launch(on_progress)
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Stop the engine. Requests still in flight end with `EngineFailed`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        self._fail_all("The engine was stopped.")

    async def _launch(self, on_progress: OnProgress) -> None:
        engine, ready = await EngineProcess.launch(self._start, on_progress)
        resolved = replace(ready.resolved, model=self._start.name)
        self.ready = msgspec.structs.replace(ready, resolved=resolved)
        self._heard_at = time.monotonic()
        self._engine = engine

    async def _supervise(self) -> None:
        """Listen to the engine; when it dies, say so to all who wait, and start another."""
        pause_s = 0.5
        while True:
            if self._engine is not None:
                watchdog = asyncio.create_task(self._watch(self._engine))
                try:
                    reason = await self._listen(self._engine)
                except msgspec.DecodeError as error:
                    reason = f"it said what cannot be understood: {error}"
                finally:
                    watchdog.cancel()
                exit_code = await self._bury()
                log.error("%s ended (exit code %s): %s", self._called, exit_code, reason)
            await asyncio.sleep(pause_s)
            try:
                await self._launch(lambda done, total: None)
                log.warning("%s started again", self._called)
                pause_s = 0.5
            except (PenstockError, OSError) as error:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                log.error(
                    "%s could not be started again, next try in %.0f s: %s",
                    self._called,
                    pause_s,
                    error,
                )

    async def _bury(self) -> int:
        engine, self._engine = self._engine, None
        assert engine is not None
        self.stats = EngineStats(num_blocks=self.stats.num_blocks)
        self._fail_all("The engine process died while it worked on this request.")
        self._on_end(self.number)
        return await engine.close()

    async def _listen(self, engine: EngineProcess) -> str:
        async for message in engine.messages():
            self._heard_at = time.monotonic()
            if isinstance(message, Failed):
                return str(failure(message))
            self._take(message)
        return "it closed its connection"

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, Turn):
            self.stats = message.stats
            if message.step is not None:
                self._on_step(self.number, message.step)
            for output in message.outputs:
                generation = self._generations.get(output.request_id.rpartition("/")[0])
                if generation is not None and generation.wire_id == output.request_id:
                    self._hand_over(generation, output)

    def _hand_over(self, generation: Generation, output: Output) -> None:
        """One request's text must never be what stops all others from being heard."""
        try:
            generation.add(output)
        except Exception:
            log.exception("request %s cannot be turned into text", generation.request_id)
            self.release(generation, cancel=True)
            generation.fail(EngineFailed("The tokens of this request cannot be turned into text."))

    async def _watch(self, engine: EngineProcess) -> None:
        while self.heartbeat_age_s < self._front.watchdog_s:
            await asyncio.sleep(min(1.0, self._front.watchdog_s / 4))
        log.error(
            "no turn of the loop for %.0f s; killing the %s", self.heartbeat_age_s, self._called
        )
        engine.dump_stacks()
        await asyncio.sleep(0.5)
        engine.kill()

    # -- requests --------------------------------------------------------------------------------

    def submit(self, request: Request, transcript: Transcript) -> Generation:
        """Hand a request to the engine, which must be running. There it goes by a name that no
        other has had: its own may be another's once it is over, of which something may still come.
        """
        assert self._engine is not None
        wire_id = f"{request.request_id}/{next(self._numbers)}"
        generation = Generation(request, transcript, self, wire_id=wire_id)
        # first, since it may find that this cannot be sent
        self._engine.send(msgspec.structs.replace(request, request_id=wire_id))
        self._generations[request.request_id] = generation
        self.load += generation.num_sequences
        return generation

    def reset_prefix_cache(self) -> None:
        """Have the engine, which must be running, forget all cached prefixes."""
        assert self._engine is not None
        self._engine.send(ResetPrefixCache())

    def cancel(self, generation: Generation, index: int | None = None) -> None:
        """Nobody waits for this completion any more, or for none of the request's."""
        if self._engine is not None:
            self._engine.send(Cancel(request_id=generation.wire_id, index=index))

    def release(self, generation: Generation, *, cancel: bool) -> None:
        """A generation is over, or is no longer wanted."""
        if self._generations.get(generation.request_id) is not generation:
            return  # over already; another may go by its id
        del self._generations[generation.request_id]
        self.load -= generation.num_sequences
        if cancel:
            self.cancel(generation)
        else:
            self._finished_at.append(time.monotonic())

    def _fail_all(self, words: str) -> None:
        generations, self._generations = self._generations, {}
        self.load = 0
        for generation in generations.values():
            generation.fail(EngineFailed(words, remedy="Send it again."))
