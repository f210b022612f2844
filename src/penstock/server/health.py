"""GET /health/live and /health/ready, for whoever decides where requests go."""

from typing import Literal

import msgspec
from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.front import Front


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason` says why a server is not ready; `heartbeat_age_s` when its engine last spoke."""

    status: Literal["live", "ready", "not ready"]
    reason: str = ""
    heartbeat_age_s: float | None = None


async def live(front: Front, request: Request) -> Response:
    """Answers as long as the process can."""
    return _json(Health("live"), 200)


async def ready(front: Front, request: Request) -> Response:
    """Says whether requests are welcome: the engine's loop turns and the server is staying."""
    age = round(front.llm.heartbeat_age_s, 3)
    if front.is_draining:
        return _json(Health("not ready", "the server is shutting down", age), 503)
    if not front.llm.is_ready:
        reason = f"no engine is running, or its loop stands still; last heartbeat {age:.1f} s ago"
        return _json(Health("not ready", reason, age), 503)
    return _json(Health("ready", heartbeat_age_s=age), 200)


def _json(health: Health, status: int) -> Response:
    return Response(msgspec.json.encode(health), status, media_type="application/json")


LIVE = Endpoint("GET", "/health/live", live, answer=Health, open=True)
READY = Endpoint("GET", "/health/ready", ready, answer=Health, open=True)
HEALTH = Endpoint("GET", "/health", ready, answer=Health, open=True)
HEALTHZ = Endpoint("GET", "/healthz", ready, answer=Health, open=True)
