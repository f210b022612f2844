"""Who may ask: with keys set, every route is closed to those without one, but for health."""

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.server.errors import HttpError

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/healthz"})


def salt_of(scope: Scope) -> str:
    """Keeps the prefix-cache blocks of one key's owner from another's. Empty without keys."""
    return str(scope["state"].get("salt", ""))


class Auth:
    """Pure ASGI middleware. Only hashes of the keys are kept."""

    def __init__(self, app: ASGIApp, api_keys: tuple[str, ...]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._digests and scope["path"] not in OPEN_PATHS:
            digest = hashlib.sha256(_bearer_token(scope)).digest()
            # every key is compared, so that time does not tell which one came near
            matches = [hmac.compare_digest(digest, known) for known in self._digests]
            if not any(matches):
                raise _refusal("Incorrect API key provided.")
            scope["state"]["salt"] = hashlib.sha256(b"prefix cache" + digest).hexdigest()[:32]
        await self._app(scope, receive, send)


def _bearer_token(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return bytes(token.strip())
    raise _refusal("You didn't provide an API key in an Authorization: Bearer header.")


def _refusal(message: str) -> HttpError:
    return HttpError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
