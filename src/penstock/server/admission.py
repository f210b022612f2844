"""While no more may wait for the engine, whoever asks for more is told so at once."""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.routing import sharing
from penstock.server.visit import visit_of
from penstock.vocabulary.errors import Overloaded, Unavailable


class Admission:
    """Pure ASGI middleware. Understanding a request only to refuse it would take the processor from
    the engine that everybody waits for.

    Where dialects share a path and word refusals differently, the body has to tell them apart:
    these refuse when they submit, as all do that find room here and have lost it since.
    """

    def __init__(self, app: ASGIApp, front: Front, endpoints: Iterable[Endpoint]) -> None:
        self._app = app
        self._front = front
        self._guarded = {
            (sharers[0].method, sharers[0].path)
            for sharers in sharing(endpoints)
            if all(each.refused_early for each in sharers)
            and all(each.wording is sharers[0].wording for each in sharers)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) in self._guarded:
            try:
                self._front.check_room()
            except (Overloaded, Unavailable):
                visit_of(scope).route = scope["path"]
                await _read_away(receive)
                raise
        await self._app(scope, receive, send)


async def _read_away(receive: Receive) -> None:
    """Take the body, which is not kept: a client that is still sending may not see the answer."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
