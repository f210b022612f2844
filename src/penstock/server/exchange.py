"""The outermost layer: every request gets an id, an answer whatever happens, and is counted."""

import logging
import re
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.engine.log_format import about
from penstock.server.attendance import ClientDisconnected
from penstock.server.errors import http_error_from, is_foreseen
from penstock.server.front import Front
from penstock.server.routing import Wordings, wording_of
from penstock.server.visit import Visit, visit_of

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499  # nginx's status for it; nobody receives it, but logs and metrics show it

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id under which the log and the client's `x-request-id` header know this request."""
    return visit_of(scope).request_id


class Exchange:
    """Pure ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, front: Front, wordings: Wordings) -> None:
        self._app = app
        self._wordings = wordings
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        visit = Visit(_chosen_id(scope), scope["method"])
        wording = self._wordings.of(scope["path"])
        scope.setdefault("state", {}).update(visit=visit, wording=wording)
        status = CLIENT_LEFT

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = visit.headers()
                if name := wording_of(scope).id_header:
                    headers[name] = visit.request_id
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.encode(), text.encode()) for name, text in headers.items()),
                ]
            await send(message)

        self._front.visits.add(visit)
        try:
            await self._app(scope, receive, send_with_headers)
        except (ClientDisconnected, ClientDisconnect):  # while answering; while reading the body
            status = CLIENT_LEFT
        except Exception as error:
            _log(error, visit.request_id)
            if status != CLIENT_LEFT:
                raise  # half an answer is out; closing the connection is all that is left
            response = http_error_from(error, visit.request_id).response(wording_of(scope))
            await response(scope, receive, send_with_headers)
        finally:
            self._front.visits.discard(visit)
            self._record(scope, status)
        return None

    def _record(self, scope: Scope, status: int) -> None:
        visit, front = visit_of(scope), self._front
        num_tokens = visit.num_prompt_tokens + visit.num_generated_tokens
        front.metrics.answered(visit.route, status, key=visit.key_name, num_tokens=num_tokens)
        if front.tracing and visit.method == "POST":
            headers = {
                name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
            }
            front.tracing.record(visit, headers, status)
        if front.settings.access_log:
            logger.info("answered", extra=about(**_summary(visit, status)))


def _summary(visit: Visit, status: int) -> dict[str, object]:
    """What the log tells of a request: never its contents, of its key only the name."""
    return {
        "request_id": visit.request_id,
        "key": visit.key_name,
        "method": visit.method,
        "route": visit.route,
        "status": status,
        "error": visit.error,
        "seconds": round(visit.age_s, 3),
        "queue_seconds": visit.queue_s and round(visit.queue_s, 3),
        "first_token_seconds": visit.first_token_s and round(visit.first_token_s, 3),
        "prompt_tokens": visit.num_prompt_tokens,
        "generated_tokens": visit.num_generated_tokens,
    }


def _chosen_id(scope: Scope) -> str:
    """The client's own id where it is harmless to log and send back, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _WELL_FORMED_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


def _log(error: Exception, request_id: str) -> None:
    """Failures of ours. Refusals are counted, not logged: whoever is refused tends to come back."""
    if not is_foreseen(error):
        logger.error("A request failed.", exc_info=error, extra=about(request_id=request_id))
    elif http_error_from(error, request_id).status in (500, 504):
        logger.warning("A request failed: %s", error, extra=about(request_id=request_id))
