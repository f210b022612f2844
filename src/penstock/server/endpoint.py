"""What one route is: where it stands, what answers it, and how OpenAPI describes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from fastapi import Request, Response

from penstock.server.front import Front


@dataclass(frozen=True)
class Endpoint:
    """One route. `body` and `answer` document it; `streams` if it may answer with events."""

    method: str
    path: str
    handler: Callable[[Front, Request], Awaitable[Response]]
    body: type[msgspec.Struct] | None = None
    answer: type[msgspec.Struct] | None = None
    streams: bool = False
    media_type: str = "application/json"
