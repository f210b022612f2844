"""No request body grows beyond its limit, whether it announces its length or not."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server.errors import HttpError

_MOST_DIGITS = 18  # Python refuses to convert thousands of them


class BodyLimit:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        self._check(_announced_length(scope))
        num_received = 0

        async def receive_counted() -> Message:
            nonlocal num_received
            message = await receive()
            if message["type"] == "http.request":
                num_received += len(message.get("body", b""))
                self._check(num_received)
            return message

        return await self._app(scope, receive_counted, send)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise HttpError(
                413,
                f"The request body is larger than the {self._max_bytes} bytes accepted here.",
                code="request_too_large",
                headers={"connection": "close"},  # the rest of the body is not worth reading
            )


def _announced_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:_MOST_DIGITS])
    return 0
