"""GET /health/live and /health/ready, for whoever decides where requests go."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.engine_front import Replica
from penstock.server.front import Front


class ReplicaCount(msgspec.Struct, frozen=True):
    """How many engines answer, of how many there should be."""

    ready: int
    of: int


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason` says why a server is not ready; `heartbeat_age_s` when an engine last spoke;
    `replicas` is told where there are several.
    """

    status: Literal["live", "ready", "not ready"]
    reason: str = ""
    heartbeat_age_s: float | None = None
    replicas: ReplicaCount | None = None


async def live(front: Front, request: Request) -> Response:
    """Answers as long as the process can."""
    return _json(Health("live"), 200)


async def ready(front: Front, request: Request) -> Response:
    """Says whether requests are welcome: an engine's loop turns and the server is staying."""
    age, replicas = round(front.llm.heartbeat_age_s, 3), _count(front.llm.replicas)
    if front.is_draining:
        return _json(Health("not ready", "the server is shutting down", age, replicas), 503)
    if not front.llm.is_ready:
        reason = f"no engine is running, or its loop stands still; last heartbeat {age:.1f} s ago"
        return _json(Health("not ready", reason, age, replicas), 503)
    return _json(Health("ready", heartbeat_age_s=age, replicas=replicas), 200)


def _count(replicas: Sequence[Replica]) -> ReplicaCount | None:
    if len(replicas) == 1:
        return None
    return ReplicaCount(sum(replica.is_ready for replica in replicas), len(replicas))


def _json(health: Health, status: int) -> Response:
    return Response(msgspec.json.encode(health), status, media_type="application/json")


LIVE = Endpoint("GET", "/health/live", live, answer=Health, open=True)
READY = Endpoint("GET", "/health/ready", ready, answer=Health, open=True)
HEALTH = Endpoint("GET", "/health", ready, answer=Health, open=True)
HEALTHZ = Endpoint("GET", "/healthz", ready, answer=Health, open=True)
