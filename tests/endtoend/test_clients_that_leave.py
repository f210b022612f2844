"""Whoever leaves takes nothing from those who stay, and leaves nothing behind."""

import asyncio
import json
import random

import httpx

from tests.endtoend.served import eventually

NUM_CLIENTS = 200
PROMPTS = ["def fibonacci(n):", "import os\n", "class Stack:\n    def", "for i in range(", "try:\n"]
MAX_TOKENS = 40


def body(prompt: str | list[str], **options) -> dict:
    fixed = {"temperature": 0, "ignore_eos": True, "max_tokens": MAX_TOKENS}
    return {"prompt": prompt, **fixed, **options}


def is_empty(served) -> bool:
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return all(served.metric(name) == 0 for name in names)


async def stream(client: httpx.AsyncClient, prompt: str, leaves_after: int | None) -> str | None:
    """The text of a whole stream, or None if the client left in the middle of it."""
    text, num_events = "", 0
    async with client.stream("POST", "/v1/completions", json=body(prompt, stream=True)) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return text
            if line:
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                num_events += 1
            if leaves_after is not None and num_events >= leaves_after:
                return None
    raise AssertionError("the stream ended without [DONE]")


async def test_two_hundred_streams_of_which_a_third_disconnect(served):
    chance = random.Random(0)
    leaving = [
        chance.randrange(1, MAX_TOKENS - 5) if i % 3 == 0 else None for i in range(NUM_CLIENTS)
    ]
    limits = httpx.Limits(max_connections=NUM_CLIENTS)
    async with httpx.AsyncClient(base_url=served.url, limits=limits) as client:
        expected = {prompt: await stream(client, prompt, None) for prompt in PROMPTS}
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(stream(client, PROMPTS[i % len(PROMPTS)], leaves_after))
                for i, leaves_after in enumerate(leaving)
            ]
    for i, task in enumerate(tasks):
        assert task.result() == (
            expected[PROMPTS[i % len(PROMPTS)]] if leaving[i] is None else None
        )
    assert eventually(lambda: is_empty(served))


async def test_a_client_that_leaves_before_its_whole_answer_frees_its_blocks(served):
    async with httpx.AsyncClient(base_url=served.url) as client:
        many = body(30 * ["x = ["], max_tokens=2000)  # so that it does not end before we leave
        waiting = asyncio.create_task(client.post("/v1/completions", json=many))
        assert await asyncio.to_thread(eventually, lambda: served.metric("num_requests_running"))
        waiting.cancel()
    assert eventually(lambda: is_empty(served))


def test_a_stop_string_ends_the_work_in_the_engine_too(served):
    answer = httpx.post(
        f"{served.url}/v1/completions",
        json=body("def add(a, b):\n    return a +", stop=["\n"], max_tokens=2000),
    ).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert eventually(lambda: is_empty(served))
