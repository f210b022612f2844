"""When the engine cannot, or the server errs."""

import asyncio
import logging

import pytest

from penstock.vocabulary.errors import InvalidRequest, Overloaded, Unavailable
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events, let_pass

BODY = {"prompt": "abc"}


async def test_a_full_queue_says_when_to_come_back(client, llm):
    llm.refusal = Overloaded("The queue is full.", retry_after_s=7)
    for body in (BODY, {**BODY, "stream": True}):
        response = await client.post("/v1/completions", json=body)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "7"
        assert response.json()["error"] == {
            "message": "The queue is full. Try again in 7 s.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }


async def test_without_an_engine_the_answer_is_503_and_when_to_come_back(client, llm):
    llm.refusal = Unavailable("The engine is being restarted.")
    response = await client.post("/v1/completions", json={**BODY, "stream": True})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "unavailable"


async def test_what_the_engine_finds_invalid_is_the_client_s_fault(client, llm):
    llm.refusal = InvalidRequest("Token 9 is not in the vocabulary.", param="logit_bias")
    response = await client.post("/v1/completions", json=BODY)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "logit_bias"


async def test_if_one_prompt_is_refused_none_stays_in_the_engine(client, llm):
    llm.refusal, llm.num_until_refusal = Overloaded("Full.", retry_after_s=1), 2
    response = await client.post("/v1/completions", json={"prompt": ["a", "b", "c"]})
    assert response.status_code == 429
    assert len(llm.cancelled) == 2
    assert not llm.in_flight


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_dies_before_the_first_token_is_a_status_500(stream):
    llm = ScriptedLLM(Script("Hello", fails_after=0))
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json={**BODY, "stream": stream})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_failed"


async def test_an_engine_that_dies_later_ends_the_stream_with_an_error_and_without_done():
    llm = ScriptedLLM(Script("Hello", fails_after=2))
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json={**BODY, "stream": True})
    *chunks, error = events(response.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "He"
    assert error == {
        "error": {
            "message": "The engine process died while it worked on this request.",
            "type": "server_error",
            "param": None,
            "code": "engine_failed",
        }
    }


async def test_when_one_of_several_prompts_fails_the_others_are_freed():
    def second_fails(request):
        fails = request.prompt_token_ids == [98]
        return Script("Hello", fails_after=1 if fails else None, hangs_after=None if fails else 3)

    llm = ScriptedLLM(second_fails)
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json={"prompt": ["a", "b", "c"]})
    assert response.status_code == 500
    assert not llm.in_flight


@pytest.mark.parametrize("stream", [False, True])
async def test_a_mistake_of_ours_leaks_nothing_and_is_logged_under_the_request_s_id(
    monkeypatch, caplog, stream
):
    llm = ScriptedLLM()
    monkeypatch.setattr(llm, "submit", lambda *args, **kwargs: {}["secret detail"])
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json={**BODY, "stream": stream})
    assert response.status_code == 500
    request_id = response.headers["x-request-id"]
    assert request_id in response.json()["error"]["message"]
    assert "secret detail" not in response.text
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.about["request_id"] == request_id
    assert record.exc_info is not None


async def test_a_mistake_of_ours_in_a_stream_ends_it_and_frees_the_engine(monkeypatch, caplog):
    llm = ScriptedLLM(Script("Hello"))
    spell = llm.tokenizer.token_bytes
    monkeypatch.setattr(llm.tokenizer, "token_bytes", lambda id_: spell({72: 72, 101: 101}[id_]))
    async with client_of(llm) as client:
        body = {**BODY, "stream": True, "logprobs": 0}
        response = await client.post("/v1/completions", json=body)
    *chunks, error = events(response.text)
    assert len(chunks) == 2
    assert error["error"]["code"] == "internal_error"
    assert not llm.in_flight
    assert len(llm.cancelled) == 1
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_may_take_no_longer_than_the_server_allows(stream):
    llm = ScriptedLLM(Script("Hello", hangs_after=0))
    async with client_of(llm, request_timeout_s=600) as client:
        body = {**BODY, "stream": stream}
        asked = asyncio.create_task(client.post("/v1/completions", json=body))
        while not llm.in_flight:
            await asyncio.sleep(0.001)
        let_pass(599)
        await asyncio.sleep(0.01)
        assert not asked.done()
        let_pass(1)
        response = await asked
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    assert len(llm.cancelled) == 1


async def test_every_answer_carries_a_request_id_and_the_client_s_own_if_it_is_harmless(client):
    response = await client.get("/v1/models")
    assert len(response.headers["x-request-id"]) == 32
    response = await client.get("/v1/nothing", headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    response = await client.get("/v1/models", headers={"x-request-id": "a b\tc"})
    assert response.headers["x-request-id"] != "a b\tc"
