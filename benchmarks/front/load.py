"""A client that costs little: it counts what comes and looks at nothing else."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.front.server import Front

_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer: its status, when it came (seconds after `time.monotonic` was `began`), events."""

    status: int
    began: float
    first_s: float
    whole_s: float
    num_events: int = 0
    has_retry_after: bool = False


def completion(**fields: object) -> bytes:
    """The request for a completion, ready to be sent."""
    body = json.dumps({"prompt": "#", "ignore_eos": True, **fields}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body


WATCH = b"GET /live/steps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
READY = b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def ask(front: Front, request: bytes) -> Answer:
    """Send a request on a connection of its own and read all that comes. To be run in uvloop: what
    asyncio's own loop and streams take for this is taken from the server, where cores are few.
    """
    loop = asyncio.get_running_loop()
    began, ended = time.monotonic(), loop.create_future()
    transport, answering = await loop.create_connection(
        lambda: _Answering(request, ended), front.host, front.port
    )
    try:
        await ended
    finally:
        transport.abort()
    head = answering.head.partition(_END_OF_HEAD)[0]
    return Answer(
        status=int(head.split(b" ", 2)[1]),
        began=began,
        first_s=answering.first_at - began,
        whole_s=time.monotonic() - began,
        num_events=answering.num_events,
        has_retry_after=b"retry-after:" in head.lower(),
    )


async def text_of(front: Front, request: bytes) -> str:
    """The head and the body that a request is answered with."""
    reader, writer = await asyncio.open_connection(front.host, front.port)
    try:
        writer.write(request)
        return (await reader.read()).decode()
    finally:
        writer.close()


class _Answering(asyncio.Protocol):
    """Keeps what comes until the end of the head, and counts the events from there on."""

    def __init__(self, request: bytes, ended: "asyncio.Future[None]") -> None:
        self.head = b""
        self.first_at = 0.0
        self.num_events = 0
        self._request = request
        self._ended = ended

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.num_events += data.count(b"data: {")
        if not self.first_at:
            self.head += data
            if _END_OF_HEAD in self.head:
                self.first_at = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended.done():
            return  # nobody waits any more
        if exc is None and self.first_at:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(exc or ConnectionError("The server sent no answer."))
