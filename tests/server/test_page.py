"""The page's files, and the events of its live view. tests/browser opens it in a browser."""

import asyncio
import contextlib
import json
import re

import httpx
import pytest
from fastapi import Request

from penstock.server.front import front_of
from penstock.server.page import live_steps
from penstock.server.page.files import FILES
from penstock.server.serve import serve
from penstock.server.settings import ServerSettings
from penstock.vocabulary.messages import EngineStats, PromptSlice, Step
from tests.server.scripted_llm import ScriptedLLM, ScriptedReplica
from tests.server.serving import PATIENCE_S, client_of, events


def step(number: int, **fields) -> Step:
    told = {
        "ended_at": 1.7e9,
        "duration_s": 0.02,
        "token_budget": 64,
        "num_decoding": 3,
        "prompt_slices": [PromptSlice(7, 61)],
        "num_running": 4,
        "num_waiting": 1,
        "num_blocks_used": 9,
        "num_multiply_adds": 4_000_000,
        "num_bytes_read": 6_000_000,
        "arithmetic_share": None,
        "bandwidth_share": None,
    }
    return Step(number=number, **{**told, **fields})


async def test_the_page_asks_for_nothing_but_files_that_are_there(client):
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert len(addresses) == 4  # the icon twice
    imports = [re.findall(rb'from "\./([^"]+)"', source) for source in FILES.values()]
    folder = addresses[0].rpartition("/")[0]
    for address in {
        *addresses,
        *(f"{folder}/{name.decode()}" for each in imports for name in each),
    }:
        response = await client.get(f"/{address}")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    "suffix, media_type",
    [("js", "text/javascript; charset=utf-8"), ("css", "text/css; charset=utf-8")],
)
async def test_files_say_what_they_are_and_nothing_else_is_guessed(client, suffix, media_type):
    path = next(path for path in FILES if path.endswith(suffix))
    headers = (await client.get(path)).headers
    assert headers["content-type"] == media_type
    assert headers["x-content-type-options"] == "nosniff"


async def test_nothing_inline_and_nothing_from_elsewhere_may_run(client):
    policy = (await client.get("/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    for source in FILES.values():
        others = set(re.findall(rb"https?://[\w.]+", source))
        assert others <= {b"http://www.w3.org"}  # the name of SVG, which nobody fetches


async def test_a_browser_that_has_the_page_is_told_so_in_one_line(client):
    tag = (await client.get("/")).headers["etag"]
    again = await client.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")


async def test_files_of_another_version_are_not_found(client):
    response = await client.get("/page/0000/app.js")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


class Watcher:
    """A client of /live/steps."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self):
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                if line:
                    return json.loads(line.removeprefix("data: "))
        return None

    async def next_with_steps(self):
        while not (event := await self.next())["steps"]:
            pass
        return event


@pytest.fixture
async def live():
    """(a scripted engine, and the URL of a server around it, in the test's own event loop)."""
    llm, url = ScriptedLLM(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(llm, ServerSettings(port=0), on_ready=url.set_result))
    yield llm, await url
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def test_a_watcher_sees_the_steps_of_late_and_then_each_new_one(live):
    llm, url = live
    llm.steps.add(step(1))
    llm.stats = EngineStats(num_blocks=100, num_steps=1)
    async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/live/steps") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        watcher = Watcher(answer)
        first = await watcher.next()
        assert first["is_ready"] and first["stats"]["num_blocks"] == 100
        assert [each["number"] for each in first["steps"]] == [1]
        assert first["steps"][0]["prompt_slices"] == [[7, 61]]
        assert first["latencies"]["time_to_first_token"][-1] == [None, 0]
        for number in (2, 3):
            llm.steps.add(step(number))
        assert [each["number"] for each in (await watcher.next_with_steps())["steps"]] == [2, 3]
        assert (await watcher.next())["steps"] == []  # a second later, so that silence means death


async def test_of_several_engines_a_watcher_hears_how_many_answer_and_whose_each_step_was(live):
    llm, url = live
    llm.replicas = [ScriptedReplica(), ScriptedReplica(is_ready=False)]
    llm.steps.add(step(1, replica=1))
    async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/live/steps") as answer:
        event = await Watcher(answer).next()
    assert (event["num_replicas"], event["num_ready"]) == (2, 1)
    assert event["steps"][0]["replica"] == 1


async def test_a_slow_watcher_loses_steps_and_is_told_how_many(live):
    llm, url = live
    llm.steps.add(step(1))
    async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/live/steps") as answer:
        watcher = Watcher(answer)
        await watcher.next()
        for number in range(2, 1002):
            llm.steps.add(step(number))
        event = await watcher.next_with_steps()
        assert event["num_missed"] + len(event["steps"]) == 1000
        assert event["steps"][-1]["number"] == 1001 and len(event["steps"]) < 1000


async def test_steps_that_come_while_an_event_is_sent_are_told_by_the_next(llm):
    llm.steps.add(step(1))
    front = front_of(llm, ServerSettings())
    sent = []

    async def send(message):
        if data := message.get("body"):
            sent.append([each["number"] for each in events(data.decode())[0]["steps"]])
            if len(sent) < 3:
                llm.steps.add(step(len(sent) + 1))
            front.is_draining = len(sent) == 3

    response = await live_steps.watch(front, Request({"type": "http"}))
    async with asyncio.timeout(PATIENCE_S):
        await response({"type": "http"}, asyncio.Event().wait, send)
    assert sent == [[1], [2], [3]]


async def test_latencies_are_counted_as_prometheus_counts_them(live):
    _, url = live
    async with httpx.AsyncClient() as client:
        await client.post(f"{url}/v1/completions", json={"prompt": "a"})
        async with client.stream("GET", f"{url}/live/steps") as answer:
            latencies = (await Watcher(answer).next())["latencies"]
    assert latencies["time_to_first_token"][-1] == [None, 1]
    bounds, counts = zip(*latencies["inter_token_latency"][:-1], strict=True)
    assert list(bounds) == sorted(bounds) and list(counts) == sorted(counts)


async def test_a_server_that_drains_does_not_wait_for_its_watchers(llm):
    async with client_of(llm) as client:
        front = client._transport.app.user_middleware[0].args[0]
        watching = asyncio.create_task(client.get("/live/steps"))
        while not front.num_open:
            await asyncio.sleep(0.01)
        front.is_draining = True
        async with asyncio.timeout(PATIENCE_S):
            assert (await watching).status_code == 200
    assert front.num_open == 0


async def test_only_so_many_may_watch_at_once(llm, monkeypatch):
    monkeypatch.setattr(live_steps, "MAX_WATCHERS", 1)
    async with client_of(llm) as client:
        front = client._transport.app.user_middleware[0].args[0]
        watching = asyncio.create_task(client.get("/live/steps"))
        while not front.num_open:
            await asyncio.sleep(0.01)
        refused = await client.get("/live/steps")
        assert refused.status_code == 429 and refused.headers["retry-after"] == "10"
        front.is_draining = True
        assert (await watching).status_code == 200
