"""Ways to talk to a server in a test: within the process, or through real sockets."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from penstock.server.app import create_app
from penstock.server.engine_front import EngineFront
from penstock.server.serve import serve
from penstock.server.settings import ServerSettings

PATIENCE_S = 60
"""Until something that a test waits for is a failure, also where other work keeps it waiting."""


def wait_until(holds: Callable[[], Any]) -> None:
    """Look again and again."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def let_pass(seconds: float) -> None:
    """Have the running event loop's clock jump ahead."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


def client_of(llm: EngineFront, **settings: Any) -> httpx.AsyncClient:
    """A client of a new server in this process. No socket is involved."""
    app = create_app(llm, ServerSettings(**settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://penstock")


@contextlib.contextmanager
def listening(llm: EngineFront, **settings: Any) -> Iterator[str]:
    """The URL of a real server on a free port, in a thread of its own."""
    urls: list[str] = []
    is_ready = threading.Event()
    loop = asyncio.new_event_loop()

    def note(url: str) -> None:
        urls.append(url)
        is_ready.set()

    task = loop.create_task(serve(llm, ServerSettings(port=0, **settings), on_ready=note))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_ready.wait(PATIENCE_S), "the server did not start"
        yield urls[0]
    finally:
        with contextlib.suppress(RuntimeError):  # told to drain, it has left and closed its loop
            loop.call_soon_threadsafe(task.cancel)
        thread.join(PATIENCE_S)


def events(body: str) -> list[Any]:
    """The data of server-sent events, decoded, except for the final [DONE]."""
    blocks = body.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    return [each if each == "[DONE]" else json.loads(each) for each in data]
