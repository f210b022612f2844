"""Which dialects a server speaks is a setting; what they share is told apart by the body."""

import msgspec
import pytest
from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError, Wording
from penstock.server.front import Front
from penstock.server.routes import DIALECTS, routes_of
from penstock.server.routing import Wordings, meant, sharing
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.serving import client_of


class Shouted(msgspec.Struct):
    """How a loud dialect says that something failed."""

    oh: str


LOUD = Wording(body=lambda error: msgspec.json.encode(Shouted(str(error))), schema=Shouted)


async def answer(front: Front, request: Request) -> Response:
    """Answers."""
    return Response()


def a_request(body: bytes) -> Request:
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": []}, receive)


def test_every_dialect_has_a_name_of_its_own_and_default_ones_exist():
    names = [dialect.name for dialect in DIALECTS]
    assert len(set(names)) == len(names)
    assert set(ServerSettings().dialects) <= set(names)


def test_an_unknown_dialect_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match=r"klingon.*Choose among.*openai"):
        routes_of(["openai", "klingon"])


async def test_a_dialect_that_is_off_has_no_routes_and_health_always_has(llm):
    async with client_of(llm, dialects=()) as client:
        assert (await client.get("/v1/models")).status_code == 404
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize(
    "body, expected",
    [(b'{"inputs": 1}', "loud"), (b'{"prompt": 1}', "plain"), (b"{", "plain"), (b"[]", "plain")],
)
async def test_endpoints_at_one_path_are_told_apart_by_the_body(body, expected):
    named = {
        "plain": Endpoint("POST", "/say", answer),
        "loud": Endpoint("POST", "/say", answer, told_by="inputs"),
    }
    other = Endpoint("GET", "/say", answer)
    groups = sharing([*named.values(), other])
    assert sorted(map(len, groups)) == [1, 2]
    assert await meant(tuple(named.values()), a_request(body)) is named[expected]


def test_failures_are_worded_as_the_path_suggests_before_anything_else_is_known():
    loud = Endpoint("POST", "/loud/{name}", answer, wording=LOUD)
    plain = Endpoint("POST", "/loud", answer)
    wordings = Wordings([loud, plain])
    error = HttpError(401, "Who?")
    assert error.response(wordings.of("/loud/me")).body == b'{"oh":"Who?"}'
    for path in ("/loud", "/elsewhere"):
        assert b'"error"' in error.response(wordings.of(path)).body
