"""A client that costs little: it counts what comes and looks at nothing else."""

import asyncio
import json
import time
from dataclasses import dataclass

from benchmarks.front.server import Front


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


async def ask(front: Front, request: bytes) -> Answer:
    """Send a request on a connection of its own and read all that comes."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(front.host, front.port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        first_s, num_events = time.monotonic() - began, 0
        while data := await reader.read(1 << 16):
            num_events += data.count(b"data: {")
        return Answer(
            status=int(head.split(b" ", 2)[1]),
            began=began,
            first_s=first_s,
            whole_s=time.monotonic() - began,
            num_events=num_events,
            has_retry_after=b"retry-after:" in head.lower(),
        )
    finally:
        writer.close()
