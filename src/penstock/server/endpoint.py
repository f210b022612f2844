"""What one route is, what answers it, and how OpenAPI describes it; and a dialect: its routes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.errors import OPENAI_WORDING, Wording
from penstock.server.front import Front


@dataclass(frozen=True)
class Endpoint:
    """One route. `body` and `answer` document it; `streams` if it may answer with events.

    Where dialects share a path, a body with the field `told_by` is meant for this endpoint. `open`
    doors need no key; behind `admin` ones the server is steered, and they need an admin key. While
    no more may wait for the engine, a request to one that is `refused_early` is refused before its
    body is understood (`server/admission.py`).
    """

    method: str
    path: str
    handler: Callable[[Front, Request], Awaitable[Response]]
    body: type[msgspec.Struct] | None = None
    answer: Any = None  # a struct, or a list of one
    streams: bool = False
    media_type: str = "application/json"
    wording: Wording = OPENAI_WORDING
    told_by: str = ""
    open: bool = False
    admin: bool = False
    refused_early: bool = False


@dataclass(frozen=True)
class Dialect:
    """Endpoints that clients of one kind expect together; `about` says which clients."""

    name: str
    about: str
    endpoints: tuple[Endpoint, ...]
