"""Which endpoint a request is meant for, and in whose words it is refused."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec
from fastapi import Request
from starlette.types import Scope

from penstock.server.endpoint import Endpoint
from penstock.server.errors import OPENAI_WORDING, Wording


def wording_of(scope: Scope) -> Wording:
    """How failures of this request are worded."""
    wording = scope["state"].get("wording", OPENAI_WORDING)
    assert isinstance(wording, Wording)
    return wording


class Wordings:
    """What is known from a path alone, before a route is found or a body is read."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._exact: dict[str, Wording] = {}
        self._prefixes: list[tuple[str, Wording]] = []
        for endpoint in endpoints:
            fixed, brace, _ = endpoint.path.partition("{")
            if brace:
                self._prefixes.append((fixed, endpoint.wording))
            else:
                self._exact.setdefault(endpoint.path, endpoint.wording)
        self._prefixes.sort(key=lambda known: len(known[0]), reverse=True)

    def of(self, path: str) -> Wording:
        """The words of the first dialect that has this path."""
        if wording := self._exact.get(path):
            return wording
        return next((w for prefix, w in self._prefixes if path.startswith(prefix)), OPENAI_WORDING)


def sharing(endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, ...]]:
    """Endpoints by method and path; those that share both stand together, in their order."""

    def key(endpoint: Endpoint) -> tuple[str, str]:
        return endpoint.path, endpoint.method

    return [tuple(group) for _, group in groupby(sorted(endpoints, key=key), key)]


async def meant(endpoints: Sequence[Endpoint], request: Request) -> Endpoint:
    """The endpoint whose field the body has; else the first that is not told by any."""
    if len(endpoints) == 1:
        return endpoints[0]
    try:
        body = msgspec.json.decode(await request.body(), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = {}  # whichever endpoint is asked says what is wrong with it
    found = (endpoint for endpoint in endpoints if endpoint.told_by in body)
    default = (endpoint for endpoint in endpoints if not endpoint.told_by)
    return next(found, None) or next(default, endpoints[0])
