"""Answers that take a while: whole or as a stream, for as long as somebody waits for them."""

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.engine.log_format import about
from penstock.server.attendance import ClientDisconnected, attended
from penstock.server.errors import http_error_from, is_foreseen
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.prompts import off_loop_if_long
from penstock.server.routing import wording_of
from penstock.server.visit import visit_of
from penstock.vocabulary.messages import TokenLogprobs
from penstock.vocabulary.results import RequestOutput

Source = TypeVar("Source")
Rendered = TypeVar("Rendered")

logger = logging.getLogger(__name__)


def json_answer(document: object) -> Response:
    """An answer that is known already."""
    return Response(msgspec.json.encode(document), media_type="application/json")


async def rendered(render: Callable[[], Rendered], results: Sequence[RequestOutput]) -> Rendered:
    """What `render` makes of results, without keeping others waiting where these are large."""
    return await off_loop_if_long(render, sum(map(_size, results)))


def entries_size(entries: Sequence[TokenLogprobs | None]) -> int:
    """How many characters take as long to read as these log probabilities take to render."""
    last = entries[-1] if entries else None
    return _CHARS_OF_ENTRY * len(entries) * (1 + len(last.top if last else ()))


_CHARS_OF_ENTRY = 4


def _size(result: RequestOutput) -> int:
    outputs = sum(len(each.text) + entries_size(each.logprobs or ()) for each in result.outputs)
    return outputs + entries_size(result.prompt_logprobs or ())


class WholeAnswer(Response):
    """Sends one JSON document when all generations have ended.

    A document with headers of its own comes as a response.
    """

    media_type = "application/json"

    def __init__(
        self,
        front: Front,
        generations: Generations,
        document: Callable[[Generations], Coroutine[Any, Any, bytes | Response]],
    ) -> None:
        super().__init__()
        self._front = front
        self._generations = generations
        self._document = document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._generations as generations:
            answer = await attended(self._document(generations), receive, self._front)
        if not isinstance(answer, Response):
            answer = Response(answer, media_type=self.media_type)
        await answer(scope, receive, send)


class EventStream(Response, Generic[Source]):
    """Sends server-sent events of a source, such as generations, which is left at the end.

    Nothing is sent before the first event, so that a failure until then is an error status. Later
    it is an event, after which the stream ends without what marks success.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        front: Front,
        source: AbstractContextManager[Source],
        events: Callable[[Source], AsyncGenerator[bytes]],
    ) -> None:
        self.status_code = 200
        self.background = None
        # the second keeps nginx from holding events back
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        self._front = front
        self._source = source
        self._events = events
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._source as source:
                await attended(self._pump(source, send), receive, self._front)
        except ClientDisconnected:
            raise
        except Exception as error:
            if not self._started:
                raise
            await self._send_failure(error, scope, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, source: Source, send: Send) -> None:
        async with aclosing(self._events(source)) as events:
            async for event in events:
                if not self._started:
                    self._started = True
                    await send(
                        {
                            "type": "http.response.start",
                            "status": self.status_code,
                            "headers": self.raw_headers,
                        }
                    )
                await send({"type": "http.response.body", "body": event, "more_body": True})

    async def _send_failure(self, error: Exception, scope: Scope, send: Send) -> None:
        visit = visit_of(scope)
        told = http_error_from(error, visit.request_id)
        visit.error = told.detail.code or str(told.status)
        logger.error(
            "A request failed while streaming: %s",
            error if is_foreseen(error) else type(error).__name__,
            exc_info=None if is_foreseen(error) else error,
            extra=about(request_id=visit.request_id),
        )
        event = told.event(wording_of(scope))
        await send({"type": "http.response.body", "body": event, "more_body": True})
