"""GET / and the files below it, as they lie in `static`.

They are open even where keys are set: a browser cannot send a bearer token with the address that
somebody types, so a closed page could never ask for the key. They are the same on every server and
hold nothing of the model, the settings or the requests; all of that the page asks for with the key.
"""

import hashlib
from pathlib import Path

from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SOURCES = {
    path.name: path.read_bytes()
    for path in sorted((Path(__file__).parent / "static").iterdir())
    if path.suffix in _MEDIA_TYPES
}
VERSION = hashlib.sha256(b"".join(_SOURCES.values())).hexdigest()[:16]
"""Part of the files' addresses, so that browsers may keep them for good."""

INDEX = _SOURCES.pop("index.html").replace(b"VERSION", VERSION.encode())
FILES = {f"/page/{VERSION}/{name}": source for name, source in _SOURCES.items()}

_HEADERS = {
    # nothing from elsewhere, nothing inline, and no text that becomes markup or code
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "etag": f'"{VERSION}"',
}


async def show(front: Front, request: Request) -> Response:
    """Shows the page: a playground, and a live view of the engine."""
    return _answer(request, INDEX, ".html", "no-cache")


async def show_file(front: Front, request: Request) -> Response:
    """Gives a script, style sheet or image of the page."""
    path = request.url.path
    if path not in FILES:
        raise HttpError(404, f"Unknown request URL: GET {path}.", code="unknown_url")
    return _answer(request, FILES[path], Path(path).suffix, "public, max-age=31536000, immutable")


def _answer(request: Request, source: bytes, suffix: str, caching: str) -> Response:
    headers = {**_HEADERS, "cache-control": caching}
    if request.headers.get("if-none-match") == _HEADERS["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(source, headers={**headers, "content-type": _MEDIA_TYPES[suffix]})


SHOW_PAGE = Endpoint("GET", "/", show, media_type="text/html", open=True)
SHOW_FILE = Endpoint("GET", "/page/{version}/{name}", show_file, media_type="*/*", open=True)
