"""A client that leaves frees the engine at once. These need real sockets."""

import json
import socket
import time

import pytest

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import PATIENCE_S, listening, wait_until


def connected(url, body, path="/v1/completions"):
    """A connection on which `body` has been posted."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("hangs_after", [0, 3])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path, body",
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", {**CHAT, "model": "scripted", "max_tokens": 9}),
    ],
)
def test_a_client_that_leaves_is_noticed_waiting_or_running_streaming_or_not(
    path, body, stream, hangs_after
):
    llm = ScriptedLLM(Script("Hello", hangs_after=hangs_after))
    with listening(llm) as url:
        with connected(url, {**body, "stream": stream}, path):
            wait_until(lambda: llm.in_flight)
            time.sleep(0.05)
            assert llm.in_flight
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_all_prompts_of_a_request_are_cancelled(stream):
    llm = ScriptedLLM(Script("Hello", hangs_after=2))
    with listening(llm) as url:
        with connected(url, {"prompt": ["a", "b", "c"], "n": 2, "stream": stream}):
            wait_until(lambda: len(llm.in_flight) == 3)
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) == 3


def test_a_client_that_stops_reading_and_leaves_is_noticed():
    llm = ScriptedLLM(Script("x" * 3000, delay_s=0.0001, hangs_after=2999), max_model_len=10_000)
    with listening(llm) as url:
        with connected(url, {"prompt": "a", "stream": True, "max_tokens": 3000}) as connection:
            assert connection.recv(100)
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) == 1


def test_a_client_that_leaves_while_sending_costs_nothing(caplog):
    llm = ScriptedLLM()
    with listening(llm) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99\r\n\r\n{")
            time.sleep(0.05)
        time.sleep(0.1)
    assert not llm.submissions
    assert not caplog.records


def test_a_client_that_stays_gets_everything_and_may_ask_again_on_the_same_connection():
    llm = ScriptedLLM(Script("Hello"))
    with listening(llm) as url, connected(url, {"prompt": "a", "stream": True}) as connection:
        received = b""
        while b"0\r\n\r\n" not in received:
            received += connection.recv(65536)
        assert received.count(b"data: ") == 6
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert llm.cancelled == []


def test_survivors_of_many_departures_get_their_full_answers():
    llm = ScriptedLLM(Script("Hello, all of you!", delay_s=0.005))
    with listening(llm) as url:
        connections = [connected(url, {"prompt": "a", "stream": True}) for _ in range(30)]
        for connection in connections[::3]:
            connection.close()
        for number, connection in enumerate(connections):
            if number % 3:
                with connection:
                    received = b""
                    while b"[DONE]" not in received:
                        part = connection.recv(65536)
                        assert part
                        received += part
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) <= 10


@pytest.mark.parametrize(
    "path, body, num_prompts",
    [
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "use_beam_search": True}, 2),
        ("/v1/embeddings", {"input": ["a", "b", "c"]}, 3),
    ],
)
def test_so_are_searches_and_texts_to_be_embedded(path, body, num_prompts):
    llm = ScriptedLLM(Script("Hello", hangs_after=0))
    with listening(llm) as url:
        with connected(url, body, path):
            wait_until(lambda: len(llm.in_flight) == num_prompts)
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) == num_prompts


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_noticed_even_if_it_has_asked_for_more(stream):
    llm = ScriptedLLM(Script("Hello", hangs_after=2))
    with listening(llm) as url:
        with connected(url, {"prompt": "a", "stream": stream}) as connection:
            wait_until(lambda: llm.in_flight)
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n" * 10)
            time.sleep(0.05)
        wait_until(lambda: not llm.in_flight)
    assert len(llm.cancelled) == 1
