"""Who may ask: with keys set, every route is closed to those without one, but for health and the
files of the page.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.keys import Key, KeyRing
from penstock.server.visit import visit_of

_READING = ("GET", "HEAD", "OPTIONS")


def salt_of(scope: Scope) -> str:
    """Keeps the prefix-cache blocks of one key's owner from another's. Empty without keys."""
    key = visit_of(scope).key
    return key.salt if key else ""


class Auth:
    """Pure ASGI middleware. Whoever is let in is held to the limits of the key."""

    def __init__(self, app: ASGIApp, front: Front, endpoints: Collection[Endpoint]) -> None:
        self._app = app
        self._keys = front.keys
        self._cors_origins = front.settings.cors_origins
        self._is_local = is_loopback(front.settings.host)
        self._open = {
            (endpoint.method, endpoint.path)
            for endpoint in endpoints
            if endpoint.open or (endpoint.path == "/metrics" and front.settings.open_metrics)
        }
        # a path with parameters stands for all that begins as it does
        self._open_below = [
            (method, path.partition("{")[0]) for method, path in self._open if "{" in path
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["method"], scope["path"]):
            return await self._app(scope, receive, send)
        if not self._keys:
            _check_origin(scope, self._cors_origins, is_local=self._is_local)
            return await self._app(scope, receive, send)
        key = visit_of(scope).key = _key_of(scope, self._keys)
        with key.quota.request():
            await self._app(scope, receive, send)
        return None

    def _is_open(self, method: str, path: str) -> bool:
        return (method, path) in self._open or any(
            method == known and path.startswith(below) for known, below in self._open_below
        )


def check_admin(scope: Scope) -> None:
    """Refuse those who may not steer the server: all without an admin key.

    Where there are no keys, such routes exist on loopback only, and then the name by which the
    server was asked must be a loopback's too: a web page may resolve its own name to 127.0.0.1.
    """
    key = visit_of(scope).key
    host = _place(b"//" + _header(scope, b"host")).hostname
    if key is None and not is_loopback(host or ""):
        raise HttpError(
            403, "Ask at 127.0.0.1, or set an admin key.", code="admin_only_on_loopback"
        )
    if key is not None and not key.is_admin:
        raise HttpError(403, "This needs an admin key.", code="admin_key_required")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key_of(scope: Scope, keys: KeyRing) -> Key:
    tokens = [token for token in (_bearer_token(scope), _header(scope, b"x-api-key")) if token]
    if not tokens:
        raise _refusal("You didn't provide an API key in an Authorization: Bearer header.")
    for token in tokens:
        if key := keys.find(token):
            return key
    raise _refusal("Incorrect API key provided.")


def _bearer_token(scope: Scope) -> bytes:
    scheme, _, token = _header(scope, b"authorization").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _header(scope: Scope, wanted: bytes) -> bytes:
    found = (value for name, value in scope["headers"] if name == wanted)
    return bytes(next(found, b"")).strip()


def _check_origin(scope: Scope, allowed: Collection[str], *, is_local: bool) -> None:
    """Without keys a browser on this machine is let in, and with it any page that it shows.

    Our own pages may ask, but where the server `is_local` they come by a loopback's name: with
    another, they may be anybody's who has had that name resolved to 127.0.0.1 (DNS rebinding).
    """
    origin = _header(scope, b"origin").decode("latin-1")
    if not origin or scope["method"] in _READING or not {"*", origin}.isdisjoint(allowed):
        return
    place = _place(origin.encode("latin-1"))
    is_ours = place.netloc.encode("latin-1") == _header(scope, b"host")
    if not is_ours or (is_local and not is_loopback(place.hostname or "")):
        raise HttpError(
            403,
            f"Pages from {origin} may not use this server. Start it with --cors-origin {origin} "
            "to allow it.",
            code="cross_origin",
        )


def _place(url: bytes) -> SplitResult:
    """Where a URL leads that a client has sent; nowhere if it is none."""
    try:
        return urlsplit(url.decode("latin-1"))
    except ValueError:
        return urlsplit("")


def _refusal(message: str) -> HttpError:
    return HttpError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
