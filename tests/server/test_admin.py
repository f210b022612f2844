"""Whoever runs a server may look into it and steer it; nobody else may."""

import asyncio
import contextlib
import threading

import httpx
import pytest

from penstock.server.admin import ADMIN
from penstock.server.app import create_app
from penstock.server.settings import ServerSettings
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events, listening

ROUTES = [(endpoint.method, endpoint.path) for endpoint in ADMIN]


def local(llm, **settings):
    """A client that asks at 127.0.0.1."""
    app = create_app(llm, ServerSettings(**settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


def with_key(key, llm, **settings):
    client = client_of(llm, api_keys=("user",), **settings)
    client.headers["authorization"] = f"Bearer {key}"
    return client


async def statuses(client):
    async with client:
        return {(await client.request(*route)).status_code for route in ROUTES}


async def test_with_keys_an_admin_s_opens_them(llm):
    async with with_key("boss", llm, admin_keys=("boss",)) as client:
        assert (await client.get("/admin/requests")).json() == {"requests": []}
        assert (await client.get("/v1/models")).status_code == 200
    assert await statuses(with_key("user", llm, admin_keys=("boss",))) == {403}


async def test_with_keys_of_users_only_there_are_no_such_routes(llm):
    assert await statuses(with_key("user", llm)) == {404}


async def test_without_keys_they_are_there_for_this_machine_only(llm):
    async with local(llm) as client:
        assert (await client.get("/admin/requests")).status_code == 200
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):
        assert await statuses(local(llm, host=host)) == {404}


async def test_a_page_that_has_its_name_resolved_to_this_machine_is_not_this_machine(llm):
    """The client's base URL is http://penstock: what a browser under DNS rebinding sends."""
    assert await statuses(client_of(llm)) == {403}
    async with local(llm) as client:
        headers = {"origin": "http://evil.example"}
        assert (await client.post("/admin/drain", headers=headers)).status_code == 403


async def running(client):
    while not (requests := (await client.get("/admin/requests")).json()["requests"]):
        await asyncio.sleep(0.01)
    return requests


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_are_listed_and_can_be_ended(stream):
    llm = ScriptedLLM(Script("Hello", hangs_after=2))
    async with with_key("boss", llm, admin_keys=("boss",)) as client:
        headers = {"x-request-id": "slow", "authorization": "Bearer user"}
        body = {"prompt": "abc", "stream": stream}
        asked = asyncio.create_task(client.post("/v1/completions", json=body, headers=headers))
        while not (listed := (await running(client))[0])["generated_tokens"]:
            pass
        assert listed.pop("age_s") > 0
        assert listed.pop("generated_tokens") in (1, 2)
        assert listed == {
            "request_id": "slow",
            "route": "/v1/completions",
            "key": "api-key-1",
            "prompt_tokens": 3,
        }
        assert (await client.delete("/admin/requests/other")).status_code == 404
        ended = await client.delete("/admin/requests/slow")
        answer = await asked
    assert ended.json() == {"cancelled": 1}
    error = events(answer.text)[-1] if stream else answer.json()
    assert answer.status_code == (200 if stream else 403)
    assert error["error"]["code"] == "cancelled"
    assert not llm.in_flight


async def test_cached_prefixes_can_be_forgotten(llm):
    async with local(llm) as client:
        assert (await client.post("/admin/reset_prefix_cache")).json() == {"done": True}
    assert llm.num_resets == 1


def test_a_server_told_to_drain_finishes_its_work_and_leaves():
    go_on = threading.Event()
    llm = ScriptedLLM(Script("Hello", hangs_after=1, until=go_on))
    with listening(llm) as url, httpx.Client(base_url=url) as client:
        with client.stream("POST", "/v1/completions", json={"prompt": "a", "stream": True}) as it:
            pieces = it.iter_text()
            text = next(pieces)
            assert httpx.post(f"{url}/admin/drain").json() == {"num_open": 1}
            assert httpx.get(f"{url}/health/ready").status_code == 503
            go_on.set()
            text += "".join(pieces)
        assert events(text)[-1] == "[DONE]"
        with pytest.raises(httpx.ConnectError):
            while True:  # one that came while it was leaving may be cut off
                with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):
                    httpx.get(f"{url}/health/live")
