"""Working off a batch: every line goes through the application that a server would run."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO

import httpx2
import msgspec

from penstock.server.app import create_app
from penstock.server.batch.ledger import Ledger
from penstock.server.batch.lines import (
    BadLine,
    BatchAnswer,
    BatchRequest,
    BatchResponse,
    Line,
    LineError,
    answer_id,
    encoded,
    lines_of,
    request_of,
)
from penstock.server.batch.results import Results
from penstock.server.batch.settings import BatchSettings
from penstock.server.engine_front import EngineFront
from penstock.server.routes import DIALECTS
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError, Unavailable

_JSON = "application/json"
_DUPLICATE = "duplicate_custom_id"
_OVERLOADED, _UNAVAILABLE = 429, 503
_ENGINE_FAILED = (424, 500)  # the first is what TGI calls it
_MOST_ATTEMPTS = 3
_PAUSE_S = 1.0
_PATIENCE_S = 600.0


@dataclass(slots=True)
class Tally:
    """What became of the lines. Those that `repeat` a custom_id are among the `bad` ones."""

    answered: int = 0
    refused: int = 0
    bad: int = 0
    repeated: int = 0
    done_before: int = 0


class Batch:
    """One run over an input, of which lines that have an answer already are skipped.

    Answers are written as they come, in no particular order.
    """

    def __init__(
        self,
        llm: EngineFront,
        settings: BatchSettings,
        *,
        ledger: Ledger,
        results: Results,
        concurrency: int,
        on_line: Callable[[], None] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self._max_line_bytes = settings.max_body_bytes
        self._ledger = ledger
        self._results = results
        self._slots = asyncio.Semaphore(min(concurrency, llm.max_in_flight))
        self._on_line = on_line
        served = ServerSettings(
            dialects=tuple(dialect.name for dialect in DIALECTS),
            served_model_name=settings.served_model_name,
            max_body_bytes=settings.max_body_bytes,
            max_total_body_bytes=settings.max_body_bytes * concurrency,
            max_prompts=settings.max_prompts,
            tool_parser=settings.tool_parser,
            reasoning_parser=settings.reasoning_parser,
        )
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(create_app(llm, served)),
            base_url="http://batch",
            timeout=None,
        )

    async def run(self, source: BinaryIO) -> Tally:
        """Answer every line of `source` that has no answer yet.

        Raises `Unavailable` if the engine dies and cannot be started again, and `SettingsError` if
        the output answers another input. What is written by then stays.
        """
        lines = lines_of(source, self._max_line_bytes)
        try:
            async with self._client, asyncio.TaskGroup() as tasks:
                while (line := await _next(lines, source)) is not None:
                    request = self._admitted(line)
                    if request is not None:
                        await self._slots.acquire()
                        tasks.create_task(self._work(line.number, request))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return self.tally

    # -- coming ----------------------------------------------------------------------------------

    def _admitted(self, line: Line) -> BatchRequest | None:
        """The line's request, unless that is answered already, or is none."""
        read = self._read(line)
        before = self._ledger.answered(line.number)
        if before is not None:
            if before != (read.custom_id,):
                raise SettingsError(
                    f"The output answers another input: line {line.number} was {before[0]!r} "
                    f"there, and is {read.custom_id!r} here.",
                    remedy="Choose another file for the output.",
                )
            self.tally.done_before += 1
            self._on_line()
            return None
        if isinstance(read, BatchRequest):
            return read
        self.tally.bad += 1
        self.tally.repeated += read.error.code == _DUPLICATE
        self._write(line.number, read.custom_id, error=read.error)
        return None

    def _read(self, line: Line) -> BatchRequest | BadLine:
        try:
            request = request_of(line)
        except BadLine as bad:
            return bad
        first = self._ledger.first_with(request.custom_id, line.number)
        if first == line.number:
            return request
        message = f"Line {first} has the custom_id {request.custom_id!r} already."
        return BadLine(_DUPLICATE, message, custom_id=request.custom_id)

    # -- going -----------------------------------------------------------------------------------

    async def _work(self, number: int, request: BatchRequest) -> None:
        try:
            response = await self._asked(request)
        finally:
            self._slots.release()
        media_type = response.headers.get("content-type", "").partition(";")[0]
        if media_type != _JSON:
            self.tally.bad += 1
            message = f"{request.url} answers with {media_type or 'nothing'}, not with JSON."
            self._write(
                number, request.custom_id, error=LineError(code="not_json", message=message)
            )
            return
        if response.is_success:
            self.tally.answered += 1
        else:
            self.tally.refused += 1
        answered = BatchResponse(
            status_code=response.status_code,
            request_id=response.headers["x-request-id"],
            body=msgspec.Raw(msgspec.json.format(response.content, indent=-1)),
        )
        self._write(number, request.custom_id, response=answered)

    async def _asked(self, request: BatchRequest) -> httpx2.Response:
        """The answer, asked for again where that may help."""
        began = time.monotonic()
        for attempt in count(1):
            response = await self._client.post(
                request.url, content=bytes(request.body), headers={"content-type": _JSON}
            )
            status = response.status_code
            if status == _UNAVAILABLE and time.monotonic() - began > _PATIENCE_S:
                raise Unavailable(
                    "The engine died and could not be started again.",
                    remedy="The same command goes on from here.",
                )
            is_worth_another = status in _ENGINE_FAILED and attempt < _MOST_ATTEMPTS
            if not (is_worth_another or status in (_OVERLOADED, _UNAVAILABLE)):
                break
            await asyncio.sleep(float(response.headers.get("retry-after", _PAUSE_S)))
        return response

    def _write(
        self,
        number: int,
        custom_id: str | None,
        *,
        response: BatchResponse | None = None,
        error: LineError | None = None,
    ) -> None:
        answer = BatchAnswer(
            id=answer_id(number), custom_id=custom_id, response=response, error=error
        )
        self._results.add(encoded(answer))
        self._on_line()


async def _next(lines: Iterator[Line], source: BinaryIO) -> Line | None:
    """The next line. A pipe may keep us waiting, which nobody else is to notice."""
    if source.seekable():
        return next(lines, None)
    return await asyncio.to_thread(next, lines, None)
