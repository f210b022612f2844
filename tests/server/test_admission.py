"""While no more may wait, whoever asks for more hears so at once, in the words of his dialect."""

import httpx
import pytest

from penstock.server.routes import routes_of
from penstock.vocabulary.errors import Overloaded, Unavailable
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of, listening
from tests.server.test_connections import connected, rest_of

PATHS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/generate",
    "/generate_stream",
    "/invocations",
    "/vertex",
    "/",
)
NONSENSE = b'{"temprature": '
MIB = 2**20


@pytest.fixture
def full(llm):
    llm.refusal = Overloaded("Too many wait.", retry_after_s=7)
    return llm


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_is_not_read_before_it_is_refused(full, path):
    async with client_of(full) as client:
        refused = await client.post(path, content=NONSENSE)
        full.refusal = None
        understood = await client.post(path, content=NONSENSE)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert understood.status_code in (400, 422)
    assert refused.json().keys() == understood.json().keys()  # a dialect's own shape


def test_all_that_is_refused_early_is_tried_here():
    dialects = ("openai", "anthropic", "tgi")
    early = {each.path for each in routes_of(dialects) if each.refused_early}
    assert early == set(PATHS)


async def test_where_the_body_tells_dialects_apart_it_is_read_first(full):
    async with client_of(full, dialects=("tgi", "mii")) as client:
        tgi = await client.post("/generate", json={"inputs": "x"})
        mii = await client.post("/generate", json={"prompt": "x"})
    assert tgi.json()["error_type"] == "overloaded"
    assert mii.json()["error"]["code"] == "rate_limit_exceeded"
    assert (tgi.status_code, mii.status_code) == (429, 429)


async def test_what_needs_no_room_is_answered(full):
    async with client_of(full) as client:
        counted = await client.post(
            "/v1/messages/count_tokens",
            json={"model": "scripted", "messages": [{"role": "user", "content": "x"}]},
        )
        ready = await client.get("/health/ready")
    assert (counted.status_code, ready.status_code) == (200, 200)


async def test_without_an_engine_nothing_is_read_either(llm):
    llm.refusal = Unavailable("The engine is being started again.")
    async with client_of(llm) as client:
        refused = await client.post("/v1/completions", content=NONSENSE)
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0


async def test_a_stranger_hears_nothing_of_the_queue(full):
    async with client_of(full, api_keys=("sk-penstock-secret",)) as client:
        assert (await client.post("/v1/completions", content=NONSENSE)).status_code == 401


async def test_refusals_are_counted_by_their_route(full):
    async with client_of(full) as client:
        await client.post("/v1/completions", content=NONSENSE)
        metrics = (await client.get("/metrics")).text
    assert 'penstock_http_requests_total{route="/v1/completions",status="429"} 1.0' in metrics


def request(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/completions HTTP/1.1", "host: a", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_client_that_is_still_sending_sees_the_answer():
    """Closing a connection with unread bytes would reset it, answer and all."""
    llm = ScriptedLLM()
    llm.refusal = Overloaded("Too many wait.", retry_after_s=7)
    with listening(llm) as url, connected(url) as connection:
        connection.sendall(request(b"x" * 3 * MIB, "connection: close"))
        assert rest_of(connection).startswith(b"HTTP/1.1 429 ")


def test_a_body_beyond_its_limit_is_not_read_to_its_end():
    llm = ScriptedLLM()
    llm.refusal = Overloaded("Too many wait.", retry_after_s=7)
    with listening(llm, max_body_bytes=100) as url, connected(url) as connection:
        connection.sendall(request(b"x" * 101)[:-50])
        assert rest_of(connection).startswith(b"HTTP/1.1 413 ")


def test_the_same_connection_is_served_once_there_is_room():
    llm = ScriptedLLM()
    llm.refusal = Overloaded("Too many wait.", retry_after_s=7)
    with listening(llm) as url, httpx.Client(base_url=url) as client:
        assert client.post("/v1/completions", content=b"x" * MIB).status_code == 429
        [connection] = client._transport._pool.connections
        llm.refusal = None
        assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 200
        assert client._transport._pool.connections == [connection]
