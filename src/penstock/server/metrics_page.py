"""GET /metrics, for Prometheus."""

from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.metrics import CONTENT_TYPE


async def show(front: Front, request: Request) -> Response:
    """Tells all metrics in Prometheus' text format."""
    return Response(front.metrics.exposition(), headers={"content-type": CONTENT_TYPE})


METRICS = Endpoint("GET", "/metrics", show, media_type="text/plain")
