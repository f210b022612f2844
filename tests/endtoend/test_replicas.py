"""`penstock serve --replicas 2` with the embedded model: two processes that act as one server."""

import asyncio
import json
import os
import re
import signal

import httpx
import pytest

from tests.endtoend.served import Served, eventually, penstock_serve

PROMPTS = ["import os\n", "def fibonacci(n):", "class Stack:", "for i in range("]
PREFIX = "import os\nimport sys\n\n\ndef main(arguments):\n" * 40
STREAM = {"prompt": "import os\n", "max_tokens": 20, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    flags = ("--replicas", "2", "--max-num-seqs", "2", "--max-waiting", "0")
    patience = ("--heartbeat-timeout-s", "600", "--watchdog-s", "600")  # while tests hold them
    with penstock_serve(tmp_path_factory.mktemp("two"), *flags, *patience) as server:
        yield server


def complete(server: Served, **body) -> dict:
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def replicas_that_stepped(server: Served) -> set[int]:
    with server.client.stream("GET", "/live/steps") as stream:
        event = next(line for line in stream.iter_lines() if line.startswith("data: "))
    return {step["replica"] for step in json.loads(event.removeprefix("data: "))["steps"]}


def readiness(server: Served) -> dict:
    return server.client.get("/health/ready").json()["replicas"]


def test_the_table_says_how_many_there_are_and_what_each_has(two):
    said = " ".join(two.log.read_text().split())
    assert re.search(r"replicas │ 2 │ each on [\d or]+ threads?, with a KV cache of its own", said)
    assert len(two.engine_pids()) == 2
    assert readiness(two) == {"ready": 2, "of": 2}


def test_whoever_answers_says_the_same_as_a_single_engine(served, two):
    for seed, prompt in enumerate([*PROMPTS, *PROMPTS]):
        body = {"prompt": prompt, "max_tokens": 12, "seed": seed, "n": 2}
        one, other = complete(served, **body), complete(two, **body)
        assert one["choices"] == other["choices"]
    assert replicas_that_stepped(two) == {0, 1}


def test_the_same_beginning_is_found_in_the_cache_every_time_until_it_is_forgotten(two):
    def num_cached(tail: str) -> int:
        usage = complete(two, prompt=PREFIX + tail, max_tokens=1)["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert num_cached("a") == 0
    assert all(num_cached(tail) > 200 for tail in "bcde")
    assert two.client.post("/admin/reset_prefix_cache").json() == {"done": True}
    assert num_cached("f") == 0
    assert all(num_cached(tail) > 200 for tail in "ghi")


def test_prompts_are_embedded_alike(served, two):
    body = {"input": PROMPTS}
    one, other = (each.client.post("/v1/embeddings", json=body).json() for each in (served, two))
    for mine, its in zip(one["data"], other["data"], strict=True):
        assert mine["embedding"] == pytest.approx(its["embedding"], abs=1e-6)


def test_metrics_are_sums_and_tell_replicas_apart_by_a_label(served, two):
    text = two.client.get("/metrics").text
    assert two.metric("replicas") == 2 and served.metric("replicas") == 1
    assert re.findall(r'^penstock_replica_up\{replica="(\d)"\} 1.0$', text, re.M) == ["0", "1"]
    resident = r'^penstock_engine_process_resident_memory_bytes\{replica="(\d)"\} (\S+)$'
    assert [(number, float(found) > 1e7) for number, found in re.findall(resident, text, re.M)] == [
        ("0", True),
        ("1", True),
    ]
    [running] = re.findall(r"^vllm:num_requests_running\{(.*)\}", text, re.M)
    assert running == 'model_name="penstock-default"'


async def all_busy(client: httpx.AsyncClient, server: Served) -> list[asyncio.Task]:
    """Four answers, as many as there is room for, which do not end while the engines are held."""

    async def ask() -> str:
        return (await client.post("/v1/completions", json=STREAM)).text

    tasks = [asyncio.create_task(ask()) for _ in range(4)]
    assert await asyncio.to_thread(eventually, lambda: server.num_open() == 4)
    return tasks


async def test_under_load_one_is_killed_and_nobody_but_its_own_clients_hears_of_it(two):
    pids = two.engine_pids()
    async with httpx.AsyncClient(base_url=two.url) as client:
        with two.held():
            busy = await all_busy(client, two)
            refused = await client.post("/v1/completions", json={"prompt": "a"})
            assert refused.status_code == 429 and "retry-after" in refused.headers
            os.kill(min(pids), signal.SIGKILL)
        ended = await asyncio.gather(*busy)
    assert sum('"error"' in said for said in ended) == 2
    assert sum(said.rstrip().endswith("data: [DONE]") for said in ended) == 2
    assert two.is_ready()
    assert eventually(lambda: readiness(two) == {"ready": 2, "of": 2})
    assert len(two.engine_pids() & pids) == 1 and len(two.engine_pids()) == 2
    for prompt in PROMPTS:
        complete(two, prompt=prompt, max_tokens=2)


async def test_when_told_to_stop_it_waits_for_the_requests_of_all(two):
    async with httpx.AsyncClient(base_url=two.url) as client:
        with two.held():
            busy = await all_busy(client, two)
            two.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(eventually, lambda: not two.is_ready())
        ended = await asyncio.gather(*busy)
    assert all(said.rstrip().endswith("data: [DONE]") for said in ended)
    assert two.process.wait(60) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--device-map", "[0, 1]"), "tensor parallelism"),
        (("--device-map", "[[0], [1]]", "--device", "cpu"), "both say where"),
    ],
)
def test_what_cannot_be_placed_is_said_at_once(tmp_path, flags, words):
    with (
        pytest.raises(AssertionError, match=f"Error: .*{words}"),
        penstock_serve(tmp_path, *flags),
    ):
        pass
