"""What one client sends to hurt the others: it is refused, and the others notice nothing."""

import asyncio
import contextlib
import gzip
import json
import re
import socket
import threading
import time

import pytest

from penstock.server.connection import LimitedConnection
from penstock.server.openai import chat_answer, completion_answer, completions, tokenization
from penstock.server.routes import DIALECTS
from penstock.server.tgi import answer as tgi_answer
from penstock.server.tgi import tokenize as tgi_tokenize
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import PATIENCE_S, client_of, listening, wait_until

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
EVERY_DIALECT = tuple(dialect.name for dialect in DIALECTS)
POSTS = sorted(
    {
        re.sub("{.*?}", "scripted", endpoint.path)
        for dialect in DIALECTS
        for endpoint in dialect.endpoints
        if endpoint.method == "POST"
    }
)
DEEP = "[" * 100_000


@pytest.fixture
async def every(llm):
    async with client_of(llm, dialects=EVERY_DIALECT) as client:
        yield client


# -- bodies ------------------------------------------------------------------------------------


async def test_a_body_of_countless_fields_is_not_searched_for_one_that_repeats(client):
    names = "".join(f'"{number}":0,' for number in range(300_000))
    answer = await client.post(COMPLETIONS, content="{" + names + '"a":0,"a":0}')
    assert answer.status_code == 400
    assert "more than 256 fields" in answer.json()["error"]["message"]


async def test_an_endless_name_is_not_compared_with_ours_nor_sent_back(client):
    answer = await client.post(COMPLETIONS, json={"prompt": "a", "x" * 3_000_000: 1})
    assert answer.status_code == 400 and len(answer.content) < 500


@pytest.mark.parametrize("key", ["9" * 5000, "-1", "1.5", "", "\u0665"])
async def test_a_bias_of_no_token_is_refused(client, key):
    answer = await client.post(COMPLETIONS, json={"prompt": "a", "logit_bias": {key: 1}})
    assert answer.status_code == (200 if key == "\u0665" else 400)  # a digit is a digit
    if answer.status_code == 400:
        assert answer.json()["error"]["param"] == "logit_bias"


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("field", ["prompt", "inputs", "messages", "instances", "x"])
async def test_a_body_that_nests_too_deeply_is_refused_everywhere(every, path, field):
    answer = await every.post(path, content=f'{{"{field}": {DEEP}'.encode())
    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("depth", [300, 900, 985])
@pytest.mark.parametrize(
    "path, body, place",
    [
        (CHAT, {"messages": HELLO}, "chat_template_kwargs"),
        (CHAT, {"messages": HELLO}, "guided_json"),
        (CHAT, {"messages": HELLO}, "metadata"),
        (COMPLETIONS, {"prompt": "a"}, "guided_json"),
        ("/v1/responses", {"input": "a"}, "tools"),
        ("/v1/messages", {"messages": HELLO, "model": "scripted", "max_tokens": 1}, "tools"),
        ("/score", {"input_data": ["a"]}, "params"),
    ],
)
async def test_so_is_one_that_nests_just_too_deeply_for_what_is_done_with_it(
    every, path, body, place, depth
):
    nested = '{"a":' * depth + "1" + "}" * depth
    content = json.dumps({**body, place: "HERE"}).replace('"HERE"', nested)
    answer = await every.post(path, content=content)
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "path, body",
    [
        (
            "/generate",
            {"inputs": "a", "parameters": {"grammar": {"type": "json", "value": f'{{"a":{DEEP}'}}},
        ),
        (COMPLETIONS, {"prompt": "a", "guided_json": f'{{"a":{DEEP}'}),
        (
            COMPLETIONS,
            {
                "prompt": "a",
                "structured_outputs": {
                    "json": f'{{"a":{DEEP}',
                    "disable_any_whitespace": True,
                },
            },
        ),
    ],
)
async def test_and_a_schema_that_does_so_in_a_string(every, path, body):
    answer = await every.post(path, json=body)
    assert answer.status_code < 500, answer.text


async def test_a_compressed_body_is_not_unpacked(client):
    content = gzip.compress(json.dumps({"prompt": "a" * 1_000_000}).encode())
    headers = {"content-encoding": "gzip"}
    answer = await client.post(COMPLETIONS, content=content, headers=headers)
    assert answer.json()["error"]["code"] == "invalid_json"


async def test_bodies_together_take_no_more_memory_than_allowed():
    llm = ScriptedLLM(Script("Hello", hangs_after=0))
    async with client_of(llm, max_body_bytes=5000, max_total_body_bytes=5000) as client:
        body = {"prompt": "a", "user": "x" * 3000}
        held = asyncio.create_task(client.post(COMPLETIONS, json=body))
        while not llm.in_flight:
            await asyncio.sleep(0.01)
        refused = await client.post(COMPLETIONS, json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "too_many_bytes"
        assert refused.headers["retry-after"] == "1"
        small = asyncio.create_task(client.post(COMPLETIONS, json={"prompt": "a"}))
        while len(llm.in_flight) < 2:
            await asyncio.sleep(0.01)
        for task in (held, small):
            task.cancel()
        await asyncio.gather(held, small, return_exceptions=True)
        llm.script = Script("Hello")
        assert (await client.post(COMPLETIONS, json=body)).status_code == 200


# -- headers -----------------------------------------------------------------------------------


async def test_an_origin_that_is_no_url_is_refused(client):
    headers = {"origin": "http://["}
    answer = await client.post(COMPLETIONS, json={"prompt": "a"}, headers=headers)
    assert answer.json()["error"]["code"] == "cross_origin"


async def test_a_host_that_is_no_host_is_no_loopback(client):
    answer = await client.get("/admin/requests", headers={"host": "["})
    assert answer.json()["error"]["code"] == "admin_only_on_loopback"


# -- what takes long ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, body, place, name",
    [
        ("/chat_tokenize", {"messages": [{"role": "user", "content": "x" * 9000}]},
         tgi_tokenize, "_placed"),
        ("/tokenize", {"inputs": "x" * 9000}, tgi_tokenize, "SimpleToken"),
        ("/tokenize", {"prompt": "x" * 9000, "return_token_strs": True}, tokenization, "shown"),
        (COMPLETIONS, {"prompt": "x" * 500, "prompt_logprobs": 5}, completion_answer,
         "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "x" * 500, "echo": True, "logprobs": 5, "stream": True},
         completion_answer, "echoed_logprobs"),
        (CHAT, {"messages": HELLO, "n": 100, "logprobs": True, "top_logprobs": 5, "max_tokens": 9},
         chat_answer, "chat_logprobs"),
        ("/generate", {"inputs": "x" * 3000, "parameters": {"decoder_input_details": True}},
         tgi_answer, "prefill_tokens"),
    ],
)  # fmt: skip
async def test_what_takes_long_to_tell_is_told_beside_the_event_loop(
    monkeypatch, path, body, place, name
):
    threads, told = set(), getattr(place, name)

    def noted(*args, **options):
        threads.add(threading.current_thread())
        return told(*args, **options)

    monkeypatch.setattr(place, name, noted)
    async with client_of(ScriptedLLM(max_model_len=10_000)) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert threads and threading.main_thread() not in threads


@pytest.mark.parametrize(
    "options",
    [
        {"logprobs": 4, "max_tokens": 21},
        {"logprobs": 0, "max_tokens": 53, "n": 2},
        {"prompt_logprobs": 20},
        {"logprobs": 4, "prompt_logprobs": 4, "max_tokens": 16},
    ],
)
async def test_no_more_log_probabilities_may_be_asked_for_than_memory_is_meant_for(llm, options):
    body = {"prompt": "x" * 5, **options}
    async with client_of(llm, max_logprob_entries=104) as client:
        answer = await client.post(COMPLETIONS, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] in body
        assert "log probabilities" in answer.json()["error"]["message"]
        fitting = await client.post(COMPLETIONS, json={**body, "max_tokens": 3, "logprobs": 0,
                                                       "prompt_logprobs": 1})  # fmt: skip
        assert fitting.status_code == 200


@pytest.mark.parametrize("options", [{"echo": True, "logprobs": 4}, {"prompt_logprobs": 4}])
async def test_nor_for_a_prompt_that_is_told_with_each_of_its_completions(llm, options):
    body = {"prompt": "x" * 5, "max_tokens": 1, **options}
    async with client_of(llm, max_logprob_entries=104) as client:
        refused = await client.post(COMPLETIONS, json={**body, "n": 5})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "n"
        assert (await client.post(COMPLETIONS, json={**body, "n": 2})).status_code == 200


@pytest.mark.parametrize("prompt", ["x" * 100, [120] * 100])
@pytest.mark.parametrize("option", ["echo", "return_token_ids"])
async def test_a_prompt_is_not_repeated_until_the_memory_is_full(
    monkeypatch, client, prompt, option
):
    monkeypatch.setattr(completions, "MOST_REPEATED_BYTES", 1000)
    body = {"prompt": prompt, option: True}
    assert (await client.post(COMPLETIONS, json={**body, "n": 11})).status_code == 400
    assert (await client.post(COMPLETIONS, json={**body, "n": 1})).status_code == 200


# -- clients that do not read ------------------------------------------------------------------


def asking(url, connection, body, *, ending=b""):
    """Post `body` on a connection that is not made yet."""
    host, port = url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    content = json.dumps(body).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(content)}\r\n"
    connection.sendall(head.encode() + ending + b"\r\n" + content)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_its_answer_is_left(monkeypatch, stream):
    lost = threading.Event()

    def noted(self, error):
        connection_lost(self, error)
        lost.set()

    connection_lost = LimitedConnection.connection_lost
    monkeypatch.setattr(LimitedConnection, "connection_lost", noted)
    llm = ScriptedLLM(Script("Hello", delay_s=0.01), max_model_len=2_000_000)
    body = {"prompt": "x" * 300_000, "echo": True, "n": 40, "stream": stream, "max_tokens": 5}
    with listening(llm, write_timeout_s=0.2) as url, socket.socket() as unread:
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking(url, unread, body)
        assert lost.wait(PATIENCE_S), "the connection was never closed"
        wait_until(lambda: not llm.in_flight)


def test_one_that_reads_slowly_gets_all_of_it():
    write_timeout_s = 0.3
    llm = ScriptedLLM(Script("Hello"), max_model_len=2_000_000)
    with listening(llm, write_timeout_s=write_timeout_s) as url:
        received, longest_pause_s = read_slowly(url)
        while received < 9_000_000 and longest_pause_s > write_timeout_s / 3:
            received, longest_pause_s = read_slowly(url)  # other work had kept it from reading
    assert received > 9_000_000


def read_slowly(url):
    """How much comes, and the longest time in which nothing was read."""
    body = {"prompt": "x" * 300_000, "echo": True, "n": 30, "max_tokens": 5}
    received, pauses_s = 0, [0.0]
    with socket.socket() as slow, contextlib.suppress(ConnectionResetError):
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        asking(url, slow, body, ending=b"connection: close\r\n")
        received += len(slow.recv(1 << 18))
        last = time.monotonic()
        while part := slow.recv(1 << 18):
            received += len(part)
            time.sleep(0.01)
            pauses_s.append(time.monotonic() - last)
            last = time.monotonic()
    return received, max(pauses_s)
