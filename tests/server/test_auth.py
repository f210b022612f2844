"""With keys set, every route but health is closed to those without one."""

import pytest

from penstock.server.routes import routes_of
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of

KEYS = ("first-key", "schlüssel")


def bearer(key):
    return {"authorization": f"Bearer {key}".encode()}


@pytest.fixture
async def client(llm):
    async with client_of(llm, api_keys=KEYS) as client:
        yield client


def closed_routes():
    paths = [(endpoint.method, endpoint.path) for endpoint in routes_of(ServerSettings().dialects)]
    paths += [("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/health/../v1/models")]
    return [path for path in paths if path[1] not in ("/health", "/health/live", "/health/ready")]


WITHOUT_A_KEY = [
    {},
    bearer("wrong"),
    bearer(""),
    bearer("first-key2"),
    {"authorization": "first-key"},
    {"authorization": "Basic first-key"},
]


@pytest.mark.parametrize("method, path", closed_routes())
async def test_a_route_is_closed_without_a_key(client, method, path):
    for headers in WITHOUT_A_KEY:
        response = await client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert "first-key" not in response.text


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_is_open(client, path):
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("key", KEYS)
async def test_any_of_the_keys_opens(client, key):
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    assert (await client.get("/metrics", headers=bearer(key))).status_code == 200
    assert (await client.get("/nothing", headers=bearer(key))).status_code == 404


async def test_owners_of_different_keys_share_no_cached_prefixes(client, llm):
    for key in (*KEYS, KEYS[0]):
        await client.post("/v1/completions", json={"prompt": "a"}, headers=bearer(key))
    first, second, again = (submission.request.salt for submission in llm.submissions)
    assert first == again
    assert first != second
    assert "first-key" not in first
    body = {"prompt": "a", "cache_salt": "mine"}
    await client.post("/v1/completions", json=body, headers=bearer(KEYS[0]))
    assert llm.last.request.salt == first + "mine"


async def test_without_keys_everybody_may_come_in(llm):
    async with client_of(llm) as client:
        await client.post("/v1/completions", json={"prompt": "a"})
    assert llm.last.request.salt == ""


def test_keys_are_not_printed_with_the_settings():
    assert "first-key" not in repr(ServerSettings(api_keys=KEYS))


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_keys": ("",)},
        {"port": 70_000},
        {"max_body_bytes": 0},
        {"drain_timeout_s": -1},
        {"request_timeout_s": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SettingsError):
        ServerSettings(**wrong)


async def test_an_absurd_content_length_is_only_too_large():
    async with client_of(ScriptedLLM()) as client:
        headers = {"content-length": "9" * 5000}
        response = await client.post("/v1/completions", content=b"{}", headers=headers)
    assert response.status_code == 413
