"""No request body grows beyond its limit, whether it announces its length or not, nor do all
together that are being answered.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server.errors import HttpError

_MOST_DIGITS = 18  # Python refuses to convert thousands of them


class BodyLimit:
    """Pure ASGI middleware. A body counts until its request has been answered."""

    def __init__(self, app: ASGIApp, max_bytes: int, max_total_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._num_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self._check(_announced_length(scope))
        num_received = 0

        async def receive_counted() -> Message:
            nonlocal num_received
            message = await receive()
            if message["type"] == "http.request":
                num_bytes = len(message.get("body", b""))
                num_received += num_bytes
                self._num_held += num_bytes
                self._check(num_received)
            return message

        try:
            return await self._app(scope, receive_counted, send)
        finally:
            self._num_held -= num_received

    def _check(self, num_bytes: int) -> None:
        closing = {"connection": "close"}  # the rest of the body is not worth reading
        if num_bytes > self._max_bytes:
            raise HttpError(
                413,
                f"The request body is larger than the {self._max_bytes} bytes accepted here.",
                code="request_too_large",
                headers=closing,
            )
        if self._num_held > self._max_total_bytes:
            raise HttpError(
                503,
                "The bodies of the requests being answered take all the memory they may.",
                kind="server_error",
                code="too_many_bytes",
                headers={"retry-after": "1", **closing},
            )


def _announced_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:_MOST_DIGITS])
    return 0
