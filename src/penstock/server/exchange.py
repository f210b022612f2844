"""The outermost layer: every request gets an id, an answer whatever happens, and is counted."""

import logging
import re
import time
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server.attendance import ClientDisconnected
from penstock.server.errors import http_error_from, is_foreseen
from penstock.server.front import Front
from penstock.server.routing import Wordings, wording_of

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499  # nginx's status for it; nobody receives it, but logs and metrics show it

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id under which the log and the client's `x-request-id` header know this request."""
    return str(scope["state"]["request_id"])


def arrival_of(scope: Scope) -> float:
    """When the request arrived, by `time.perf_counter`."""
    return float(scope["state"]["arrived"])


class Exchange:
    """Pure ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, front: Front, wordings: Wordings) -> None:
        self._app = app
        self._wordings = wordings
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = _chosen_id(scope)
        arrived = time.perf_counter()
        wording = self._wordings.of(scope["path"])
        scope.setdefault("state", {}).update(
            request_id=request_id, arrived=arrived, wording=wording
        )
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        self._front.num_open += 1
        try:
            await self._app(scope, receive, send_with_id)
        except (ClientDisconnected, ClientDisconnect):  # while answering; while reading the body
            status = CLIENT_LEFT
        except Exception as error:
            _log(error, request_id)
            if status != CLIENT_LEFT:
                raise  # half an answer is out; closing the connection is all that is left
            response = http_error_from(error, request_id).response(wording_of(scope))
            await response(scope, receive, send_with_id)
        finally:
            self._front.num_open -= 1
            self._record(scope, status, time.perf_counter() - arrived)
        return None

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._front.metrics.answered(route, status)
        if self._front.settings.access_log:
            logger.info(
                "request_id=%s method=%s route=%s status=%d seconds=%.3f",
                request_id_of(scope),
                scope["method"],
                route,
                status,
                seconds,
            )


def _chosen_id(scope: Scope) -> str:
    """The client's own id where it is harmless to log and send back, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _WELL_FORMED_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


def _log(error: Exception, request_id: str) -> None:
    """Failures of ours. Refusals are counted, not logged: whoever is refused tends to come back."""
    if not is_foreseen(error):
        logger.error("request_id=%s failed", request_id, exc_info=error)
    elif http_error_from(error, request_id).status in (500, 504):
        logger.warning("request_id=%s failed: %s", request_id, error)
