"""What a key may ask for is limited, and what is left is told as OpenAI tells it."""

import asyncio
import json
import time

import pytest

from penstock.server.quota import Bucket, KeyLimits, OverQuota, Quota
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of

ASK = {"url": "/v1/completions", "json": {"prompt": "abc"}}


class Clock:
    """A clock that goes when it is told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def ask(quota):
    with quota.request():
        pass


def test_a_bucket_refills_steadily_and_never_beyond_a_minute_s_worth():
    bucket = Bucket(60, now=0)
    bucket.take(60, now=0)
    assert bucket.level(now=0) == 0
    assert bucket.level(now=30) == 30
    assert bucket.level(now=1000) == 60


def test_what_was_overdrawn_is_missing_afterwards():
    bucket = Bucket(60, now=0)
    bucket.take(90, now=0)
    assert bucket.wait_s(1, now=0) == 31
    assert bucket.level(now=10) == -20


def test_requests_per_minute_come_back_one_by_one(clock):
    quota = Quota(KeyLimits(requests_per_minute=2), clock)
    ask(quota), ask(quota)
    with pytest.raises(OverQuota, match="2 requests per minute") as refused:
        ask(quota)
    assert refused.value.retry_after_s == 30
    clock.now += 30
    ask(quota)
    with pytest.raises(OverQuota):
        ask(quota)


def test_tokens_spent_are_waited_for(clock):
    quota = Quota(KeyLimits(tokens_per_minute=60), clock)
    ask(quota)
    quota.take_tokens(90)
    with pytest.raises(OverQuota, match="60 tokens per minute") as refused:
        ask(quota)
    assert (refused.value.kind, refused.value.retry_after_s) == ("tokens", 31)
    clock.now += 31
    ask(quota)


def test_a_refused_request_costs_nothing(clock):
    quota = Quota(KeyLimits(requests_per_minute=2, max_concurrent=1), clock)
    with quota.request():
        for _ in range(5):
            with pytest.raises(OverQuota, match="1 requests at once"):
                ask(quota)
    ask(quota)


@pytest.mark.parametrize(
    "taken, reset", [(0, "0ms"), (1, "1s"), (2, "2s"), (61, "1m1s"), (3600, "60m0s")]
)
def test_headers_say_what_is_left_and_when_all_will_be_there_again(clock, taken, reset):
    quota = Quota(KeyLimits(tokens_per_minute=60), clock)
    quota.take_tokens(taken)
    assert quota.headers() == {
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": str(max(0, 60 - taken)),
        "x-ratelimit-reset-tokens": reset,
    }
    assert Quota(KeyLimits(), clock).headers() == {}


def serving(tmp_path, llm, **limits):
    keys = [{"name": "a", "key": "a", **limits}, {"name": "b", "key": "b"}]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}))
    client = client_of(llm, api_key_file=str(path))
    client.headers["authorization"] = "Bearer a"
    return client


async def test_beyond_its_rate_a_key_gets_429_and_other_keys_do_not(tmp_path, llm):
    async with serving(tmp_path, llm, requests_per_minute=2) as client:
        began = time.monotonic()
        answers = [await client.post(**ASK) for _ in range(3)]
        took = time.monotonic() - began
        other = await client.post(**ASK, headers={"authorization": "Bearer b"})
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in answers] == ["1", "0", "0"]
    refused = answers[-1]
    assert 30 - took <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error"]["type"] == "requests"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert other.status_code == 200
    assert not [name for name in other.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_and_answers_count_against_the_tokens_of_a_key(tmp_path, llm, stream):
    """The prompt has 3 tokens and the answer 6."""
    async with serving(tmp_path, llm, tokens_per_minute=10) as client:
        body = {"prompt": "abc", "stream": stream}
        for _ in range(2):
            assert (await client.post("/v1/completions", json=body)).status_code == 200
        refused = await client.post("/v1/completions", json=body)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "tokens"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert len(llm.submissions) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_no_more_than_so_many_at_once(tmp_path, stream):
    llm = ScriptedLLM(Script("Hello", hangs_after=1))
    body = {"prompt": "abc", "stream": stream}
    async with serving(tmp_path, llm, max_concurrent=2) as client:
        tasks = [asyncio.create_task(client.post("/v1/completions", json=body)) for _ in range(2)]
        while len(llm.in_flight) < 2:
            await asyncio.sleep(0.01)
        assert (await client.get("/v1/models")).status_code == 429
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert (await client.get("/v1/models")).status_code == 200
        tasks[1].cancel()
        await asyncio.wait(tasks)


async def test_a_key_s_requests_are_no_more_urgent_than_it_allows(tmp_path, llm):
    async with serving(tmp_path, llm, min_priority=5) as client:
        for priority in (-10, 0, 5, 7):
            body = {"prompt": "a", "priority": priority}
            await client.post("/v1/completions", json=body)
    assert [each.request.priority for each in llm.submissions] == [5, 5, 5, 7]
