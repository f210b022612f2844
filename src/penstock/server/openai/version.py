"""GET /version."""

import msgspec
from fastapi import Request, Response

import penstock
from penstock.server.answers import json_answer
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front


class Version(msgspec.Struct, frozen=True):
    """Which Penstock answers here."""

    version: str


async def show(front: Front, request: Request) -> Response:
    """Says which version this is."""
    return json_answer(Version(penstock.__version__))


SHOW_VERSION = Endpoint("GET", "/version", show, answer=Version)
