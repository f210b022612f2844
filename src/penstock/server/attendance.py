"""Work goes on only while somebody waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.vocabulary.errors import Unavailable

T = TypeVar("T")


class ClientDisconnected(Exception):
    """Nobody is there any more to be answered."""


async def attended(work: Coroutine[Any, Any, T], receive: Receive, front: Front) -> T:
    """The result of `work`, which is cancelled as soon as it cannot be of use.

    Raises `ClientDisconnected` if the client leaves, `HttpError` 504 when the time allowed for a
    request is over, and `Unavailable` if the server stops.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnect(receive))
    front.work.add(task)
    try:
        await asyncio.wait(
            (task, watcher),
            timeout=front.settings.request_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if task.done() and not task.cancelled():
            return task.result()
        if watcher.done():
            raise ClientDisconnected
        if front.is_cut_off:
            raise Unavailable("The server is shutting down and could not finish this request.")
        raise HttpError(504, "The request took too long.", kind="server_error", code="timeout")
    finally:
        front.work.discard(task)
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
