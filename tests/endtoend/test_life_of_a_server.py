"""Start, overload, the death of the engine, and the end."""

import asyncio
import os
import signal

import httpx
import pytest

from tests.endtoend.served import Served, eventually, penstock_serve

LONG = {"prompt": "import os\n", "max_tokens": 2000, "ignore_eos": True}


HOLDABLE = ("--heartbeat-timeout-s", "600", "--watchdog-s", "600")


@pytest.fixture
def small(tmp_path):
    """A server that runs two completions at a time and lets two more wait."""
    flags = ("--max-num-seqs", "2", "--max-waiting", "2", *HOLDABLE)
    with penstock_serve(tmp_path, *flags) as server:
        yield server


async def ask(client: httpx.AsyncClient, **options) -> httpx.Response:
    return await client.post("/v1/completions", json={**LONG, **options})


def test_it_says_at_start_up_what_it_will_tell_from_plain_text(served, tmp_path):
    """The embedded model's chat template teaches neither tools nor thoughts."""
    said = " ".join(served.log.read_text().split())
    assert "tool calls │ none │ the chat template has none that we know" in said
    with penstock_serve(
        tmp_path, "--tool-parser", "hermes", "--reasoning-parser", "think"
    ) as asked:
        said = " ".join(asked.log.read_text().split())
    assert "tool calls │ hermes │ as asked" in said
    assert "reasoning │ think │ as asked" in said


async def num_open(server: Served, count: int) -> bool:
    """Whether so many requests come to be open."""
    return await asyncio.to_thread(eventually, lambda: server.num_open() == count)


async def test_a_full_queue_answers_429_and_says_when_to_come_back(small):
    async with httpx.AsyncClient(base_url=small.url) as client:
        with small.held():
            busy = [asyncio.create_task(ask(client)) for _ in range(4)]
            assert await num_open(small, 4)
            refused = await ask(client)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert refused.json()["error"]["message"]
            assert (await ask(client, temperature="hot")).status_code == 429  # nobody looks at it
            busy[0].cancel()
            assert await num_open(small, 3)
            assert (await ask(client, temperature="hot")).status_code == 400
            welcome = asyncio.create_task(ask(client, max_tokens=1))
            assert await num_open(small, 4)
            for task in busy[1:]:
                task.cancel()
        assert (await welcome).status_code == 200


async def test_when_the_engine_dies_clients_hear_of_it_and_it_is_started_again(small):
    doomed = small.engine_pid()
    three = {**LONG, "prompt": 3 * [LONG["prompt"]], "stream": True}  # two of them wait for others
    async with httpx.AsyncClient(base_url=small.url) as client:
        whole = asyncio.create_task(ask(client))
        async with client.stream("POST", "/v1/completions", json=three) as streamed:
            lines = streamed.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            os.kill(doomed, signal.SIGKILL)
            rest = [line async for line in lines if line]
        assert '"error"' in rest[-1] and "data: [DONE]" not in rest
        failed = await whole
        assert failed.status_code == 500 and "died" in failed.json()["error"]["message"]
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        refused = await ask(client)
        assert refused.status_code == 503 and "retry-after" in refused.headers
        assert (await client.get("/health/live")).status_code == 200
        assert await asyncio.to_thread(eventually, small.is_ready)
        assert (await ask(client, max_tokens=3)).status_code == 200


async def test_sigterm_lets_running_requests_finish_and_takes_no_new_ones(small):
    async with httpx.AsyncClient(base_url=small.url) as client:
        with small.held():
            running = asyncio.create_task(ask(client, max_tokens=30))
            assert await num_open(small, 1)
            small.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(eventually, lambda: not small.is_ready())
            refused = await ask(client)
            assert refused.status_code == 503
        answer = await running
        assert answer.json()["usage"]["completion_tokens"] == 30
    assert small.process.wait(60) == 0


def test_a_stuck_engine_does_not_count_as_ready(tmp_path):
    with penstock_serve(tmp_path, "--heartbeat-timeout-s", "1.5") as server:
        os.kill(server.engine_pid(), signal.SIGSTOP)
        assert eventually(lambda: not server.is_ready())
        os.kill(server.engine_pid(), signal.SIGCONT)
        assert eventually(server.is_ready)


def test_an_engine_stuck_for_too_long_is_replaced(tmp_path):
    with penstock_serve(tmp_path, "--heartbeat-timeout-s", "1", "--watchdog-s", "3") as server:
        stuck = server.engine_pid()
        os.kill(stuck, signal.SIGSTOP)
        assert eventually(lambda: not server.is_ready())
        assert eventually(server.is_ready)
        assert server.engine_pid() != stuck
