"""GET /live/steps: what the engine does, as server-sent events for whoever watches."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import msgspec
from fastapi import Request, Response
from prometheus_client import Histogram

from penstock.server.answers import EventStream
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.sse import json_part
from penstock.vocabulary.errors import Overloaded
from penstock.vocabulary.messages import EngineStats, Step

INTERVAL_S = 0.1
QUIET_S = 1.0
MAX_WATCHERS = 32  # each is told by itself, ten times a second


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Histograms since the server's start: pairs of an upper bound in seconds, null for none, and
    how many took no longer.
    """

    time_to_first_token: list[tuple[float | None, int]]
    inter_token_latency: list[tuple[float | None, int]]


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's state, and its steps since the last event; `num_missed` more had no room.

    Of several replicas, `num_ready` answer; `stats` are of all together, and each step says whose
    it was.
    """

    is_ready: bool
    num_replicas: int
    num_ready: int
    stats: EngineStats
    steps: list[Step]
    num_missed: int = 0
    latencies: Latencies


async def watch(front: Front, request: Request) -> Response:
    """Tells of every step as it is computed, ten times a second, those of late first.

    Each event is an `EngineEvent`. Where nothing happens, one comes every second.
    """
    num_watching = sum(visit.route == WATCH_STEPS.path for visit in front.visits)
    if num_watching > MAX_WATCHERS:
        raise Overloaded(f"{MAX_WATCHERS} are watching already.", retry_after_s=10)
    return EventStream(front, contextlib.nullcontext(front), _events)


async def _events(front: Front) -> AsyncGenerator[bytes]:
    log = front.llm.steps
    num_read, told_at = 0, 0.0
    while not front.is_draining:
        now = time.monotonic()
        if log.num_added > num_read or now - told_at >= QUIET_S:
            event = _event(front, num_read)
            num_read, told_at = log.num_added, now  # while the event is sent, more may be added
            yield b"data: " + json_part(event) + b"\n\n"
        await asyncio.sleep(INTERVAL_S)


def _event(front: Front, num_read: int) -> EngineEvent:
    log, metrics, replicas = front.llm.steps, front.metrics, front.llm.replicas
    steps = log.after(num_read)
    return EngineEvent(
        is_ready=front.llm.is_ready,
        num_replicas=len(replicas),
        num_ready=sum(replica.is_ready for replica in replicas),
        stats=front.llm.stats,
        steps=steps,
        num_missed=log.num_added - num_read - len(steps) if num_read else 0,
        latencies=Latencies(
            time_to_first_token=_buckets(metrics.time_to_first_token),
            inter_token_latency=_buckets(metrics.inter_token_latency),
        ),
    )


def _buckets(histogram: Histogram) -> list[tuple[float | None, int]]:
    [family] = histogram.collect()
    return [
        (None if sample.labels["le"] == "+Inf" else float(sample.labels["le"]), int(sample.value))
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]


WATCH_STEPS = Endpoint(
    "GET", "/live/steps", watch, answer=EngineEvent, media_type="text/event-stream"
)
