"""With keys set, every route but health and the page's files is closed to those without one."""

import pytest

from penstock.server.admin import ADMIN
from penstock.server.page.files import FILES
from penstock.server.routes import DIALECTS, routes_of
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of

KEYS = ("first-key", "schlüssel")
EVERY_DIALECT = tuple(dialect.name for dialect in DIALECTS)


def bearer(key):
    return {"authorization": f"Bearer {key}".encode()}


@pytest.fixture
async def client(llm):
    keys = {"api_keys": KEYS, "admin_keys": ("boss",)}
    async with client_of(llm, dialects=EVERY_DIALECT, **keys) as client:
        yield client


def every_route():
    return [(each.method, each.path) for each in (*routes_of(EVERY_DIALECT), *ADMIN)]


def closed_routes():
    paths = [*every_route(), ("GET", "/openapi.json"), ("GET", "/nothing")]
    paths += [("GET", "/health/../v1/models"), ("POST", "/health"), ("GET", "/health/")]
    paths += [("POST", "/"), ("POST", next(iter(FILES))), ("GET", "/page"), ("GET", "/pages/a/b")]
    return [path for path in paths if path not in (*OPEN, ("GET", "/page/{version}/{name}"))]


HEALTH = ("/health", "/health/live", "/health/ready", "/healthz", "/ping")
OPEN = [("GET", path) for path in (*HEALTH, "/", *FILES)]
WITHOUT_A_KEY = [
    {},
    bearer("wrong"),
    bearer(""),
    bearer("first-key2"),
    {"authorization": "first-key"},
    {"authorization": "Basic first-key"},
    {"x-api-key": "wrong"},
    {"x-api-key": ""},
]


@pytest.mark.parametrize("method, path", dict.fromkeys(closed_routes()))
async def test_a_route_is_closed_without_a_key(client, method, path):
    for headers in WITHOUT_A_KEY:
        response = await client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "first-key" not in response.text


async def test_the_refusal_is_openai_s(client):
    error = (await client.get("/v1/models")).json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")


@pytest.mark.parametrize("method, path", OPEN)
async def test_health_and_the_page_are_open(client, method, path):
    assert (await client.request(method, path)).status_code == 200


@pytest.mark.parametrize("key", KEYS)
async def test_any_of_the_keys_opens(client, key):
    assert (await client.get("/v1/models", headers=bearer(key))).status_code == 200
    named = {"x-api-key": key.encode()}
    assert (await client.get("/v1/models", headers=named)).status_code == 200
    assert (await client.get("/metrics", headers=bearer(key))).status_code == 200
    assert (await client.get("/nothing", headers=bearer(key))).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": "first-key"}, {"x-api-key": "first-key", "authorization": "Basic abc"}],
)
async def test_anthropic_s_header_means_the_same(client, headers):
    assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_metrics_may_be_opened(llm):
    async with client_of(llm, api_keys=KEYS, open_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


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
    settings = ServerSettings(api_keys=KEYS, admin_keys=("boss",))
    assert "first-key" not in repr(settings) and "boss" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_keys": ("",)},
        {"api_keys": ("same", "same")},
        {"api_keys": ("same",), "admin_keys": ("same",)},
        {"port": 70_000},
        {"max_body_bytes": 0},
        {"max_body_bytes": 2**30},
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


# -- pages in a browser ------------------------------------------------------------------------


async def test_without_keys_a_page_from_elsewhere_may_not_make_its_reader_s_browser_ask(client_at):
    ask = {"url": "/v1/completions", "json": {"prompt": "a"}}
    refused = await client_at().post(**ask, headers={"origin": "https://evil.example"})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "cross_origin"
    assert "--cors-origin https://evil.example" in refused.json()["error"]["message"]
    assert (await client_at().post(**ask, headers={"origin": "null"})).status_code == 403
    own = {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"}
    assert (await client_at().post(**ask, headers=own)).status_code == 200
    locked = client_at(api_keys=("k",))
    headers = {"origin": "https://evil.example", **bearer("k")}
    assert (await locked.post(**ask, headers=headers)).status_code == 200


async def test_nor_may_a_page_that_has_its_own_name_resolved_to_this_machine(client_at):
    ask = {"url": "/v1/completions", "json": {"prompt": "a"}}
    name = {"origin": "http://evil.example:8000", "host": "evil.example:8000"}
    assert (await client_at().post(**ask, headers=name)).status_code == 403
    allowed = client_at(cors_origins=("http://evil.example:8000",))
    for client in (client_at(host="0.0.0.0"), allowed):
        assert (await client.post(**ask, headers=name)).status_code == 200


async def test_answers_are_for_no_page_unless_its_origin_is_allowed(client_at):
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    closed, opened = client_at(), client_at(cors_origins=("https://chat.example",))
    answer = await closed.get("/v1/models", headers=asked)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = await opened.options("/v1/completions", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
    for body in ({"prompt": "a"}, {"prompt": 1}):
        answer = await opened.post("/v1/completions", json=body, headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    answer = await opened.get("/v1/models", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.fixture
def client_at(llm):
    """Clients of servers with these settings."""
    return lambda **settings: client_of(llm, **settings)
