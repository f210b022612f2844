"""Every way to ask wrongly is answered in OpenAI's shape, says what is wrong, and costs nothing."""

import asyncio
import json
import logging

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.app import create_app
from penstock.server.openai.bodies import ChatBody, ChatMessage, CompletionBody
from penstock.server.openai.fields import IGNORED, REFUSED
from penstock.server.settings import ServerSettings
from penstock.vocabulary.sampling_params import SamplingParams
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


async def refused(client, path, body, *, status=400):
    """The error that answers `body`, given as JSON text or as what becomes it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(path, content=content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"hello", "malformed"),
        (b'{"prompt": "a"} x', "trailing"),
        (b"[]", "Expected `object`"),
        (b'"prompt"', "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"\xff": 1}', "UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"prompt": "\\ud800 x"}', "half of a surrogate pair"),
        (b'{"temperature": NaN}', "malformed"),
        (b'{"temperature": Infinity}', "malformed"),
        (b'{"temperature": 1e999}', "out of range"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"prompt":' + b"[" * 100_000, "nests too deeply"),
    ],
)
async def test_what_is_no_json_object_is_refused(client, body, reason):
    error = await refused(client, COMPLETIONS, body)
    assert error["code"] == "invalid_json"
    assert reason in error["message"]


async def test_a_field_given_twice_is_refused(client):
    error = await refused(client, COMPLETIONS, b'{"prompt": "a", "n": 1, "n": 2}')
    assert error == {
        "message": "The field n is given more than once.",
        "type": "invalid_request_error",
        "param": "n",
        "code": None,
    }


@pytest.mark.parametrize(
    "path, body, message",
    [
        (COMPLETIONS, {"promt": "a"}, "promt. Did you mean prompt?"),
        (COMPLETIONS, {"prompt": "a", "temprature": 1}, "temprature. Did you mean temperature?"),
        (COMPLETIONS, {"prompt": "a", "messages": HELLO}, "messages."),
        (CHAT, {"messages": HELLO, "metdata": {}}, "metdata. Did you mean metadata?"),
        (CHAT, {"messages": HELLO, "max_completion_token": 1}, "mean max_completion_tokens?"),
        (CHAT, {"messages": HELLO, "temprature": None}, "temprature. Did you mean temperature?"),
        (CHAT, {"messages": HELLO, "": 1}, "Unrecognized request argument supplied: ."),
    ],
)
async def test_an_unknown_field_is_refused_and_the_nearest_known_is_named(
    client, path, body, message
):
    error = await refused(client, path, body)
    assert error["message"].startswith("Unrecognized request argument supplied: ")
    assert message in error["message"]
    assert error["param"] is not None


@pytest.mark.parametrize(
    "path, body, param",
    [
        (COMPLETIONS, {}, "prompt"),
        (COMPLETIONS, {"prompt": None}, "prompt"),
        (COMPLETIONS, {"prompt": 5}, "prompt"),
        (COMPLETIONS, {"prompt": ["a", [1]]}, "prompt"),
        (COMPLETIONS, {"prompt": [1, "a"]}, "prompt"),
        (COMPLETIONS, {"prompt": [-1]}, "prompt[0]"),
        (COMPLETIONS, {"prompt": [1, 1.5]}, "prompt[1]"),
        (COMPLETIONS, {"prompt": [10**30]}, "prompt"),
        (COMPLETIONS, {"prompt": [70_000]}, "prompt"),
        (COMPLETIONS, {"prompt": "a", "model": 7}, "model"),
        (COMPLETIONS, {"prompt": "a", "stream": "yes"}, "stream"),
        (COMPLETIONS, {"prompt": "a", "echo": 1}, "echo"),
        (COMPLETIONS, {"prompt": "a", "n": 0}, "n"),
        (COMPLETIONS, {"prompt": "a", "n": 10**9}, "n"),
        (COMPLETIONS, {"prompt": "a", "n": True}, "n"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "many"}, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "temperature": 2.5}, "temperature"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 100}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "logprobs": True}, "logprobs"),
        (COMPLETIONS, {"prompt": "a", "stop": ""}, "stop"),
        (COMPLETIONS, {"prompt": "a", "stop": ["x"] * 100}, "stop"),
        (COMPLETIONS, {"prompt": "a", "seed": 2**70}, "seed"),
        (COMPLETIONS, {"prompt": "a", "top_k": 2**70}, "top_k"),
        (COMPLETIONS, {"prompt": "a", "stop_token_ids": [2**70]}, "stop_token_ids"),
        (COMPLETIONS, {"prompt": "a", "priority": 2**40}, "priority"),
        (COMPLETIONS, {"prompt": "a", "cache_salt": ""}, "cache_salt"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"hello": 1}}, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "n": 3, "best_of": 2}, "best_of"),
        (COMPLETIONS, {"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
        (COMPLETIONS, {"prompt": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        (COMPLETIONS, {"prompt": "a", "truncate_prompt_tokens": 1001}, "truncate_prompt_tokens"),
        (COMPLETIONS, {"prompt": "a", "suffix": "z"}, "suffix"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"prompt": "a", "stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "Hello"}, "messages"),
        (CHAT, {"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        (CHAT, {"messages": [{"content": "a"}]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "user", "contnet": "a"}]}, "messages[0]"),
        (CHAT, {"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{}]}]}, "messages"),
        (CHAT, {"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens"),
        (
            CHAT,
            {"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4},
            "max_tokens",
        ),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs"),
        (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"messages": HELLO, "logprobs": 2}, "logprobs"),
    ],
)
async def test_a_wrong_value_is_refused_with_the_name_of_its_field(client, llm, path, body, param):
    error = await refused(client, path, body)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert not llm.submissions


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_what_would_change_the_answer_is_refused_and_not_dropped(client, name):
    error = await refused(client, CHAT, {"messages": HELLO, name: {"some": "wish"}})
    assert error["message"] == f"{name} is not supported yet by this server."
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], ["a", ""]])
async def test_an_empty_prompt_is_refused(client, llm, prompt):
    error = await refused(client, COMPLETIONS, {"prompt": prompt})
    assert error["param"] == "prompt"
    assert "empty" in error["message"]
    assert not llm.submissions


async def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers():
    async with client_of(ScriptedLLM(max_model_len=10)) as client:
        error = await refused(client, COMPLETIONS, {"prompt": "x" * 10})
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == "prompt"
        assert "maximum context length is 10 tokens" in error["message"]
        assert "10 in the prompt" in error["message"]
        error = await refused(client, CHAT, {"messages": HELLO})
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


async def test_more_tokens_than_the_context_holds_are_refused_if_asked_for_by_name():
    llm = ScriptedLLM(max_model_len=10)
    async with client_of(llm) as client:
        error = await refused(client, COMPLETIONS, {"prompt": "abc", "max_tokens": 8})
        assert error["code"] == "context_length_exceeded"
        assert "3 in the prompt, 8 in the output" in error["message"]
        assert (await client.post(COMPLETIONS, json={"prompt": "abc"})).status_code == 200
    assert llm.last.params.max_tokens == 7


async def test_too_many_prompts_are_refused():
    async with client_of(ScriptedLLM(), max_prompts=2) as client:
        error = await refused(client, COMPLETIONS, {"prompt": ["a", "b", "c"]})
    assert "3 prompts" in error["message"]


async def test_more_completions_than_may_ever_wait_are_refused_and_not_put_off(client, llm):
    llm.max_in_flight = 6
    error = await refused(client, COMPLETIONS, {"prompt": ["a", "b"], "n": 4})
    assert "8 completions" in error["message"]
    assert not llm.submissions


async def test_an_unknown_model_is_refused_as_openai_does(client):
    error = await refused(client, COMPLETIONS, {"prompt": "a", "model": "gpt-9"}, status=404)
    assert error["code"] == "model_not_found"
    assert (await client.get("/v1/models/gpt-9")).json()["error"]["code"] == "model_not_found"


async def test_a_model_without_a_chat_template_says_so():
    async with client_of(ScriptedLLM(chat_template=None)) as client:
        error = await refused(client, CHAT, {"messages": HELLO})
    assert "no chat template" in error["message"]


async def test_a_template_that_refuses_a_conversation_is_quoted():
    template = "{{ raise_exception('Roles must alternate.') }}"
    async with client_of(ScriptedLLM(chat_template=template)) as client:
        error = await refused(client, CHAT, {"messages": HELLO})
    assert error["message"] == "Roles must alternate."


async def test_no_route_and_no_such_method_have_openai_s_shape_too(client):
    response = await client.get("/v1/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"
    response = await client.get("/v1/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_supported"
    assert (await client.get("/docs")).status_code == 404


async def test_a_body_beyond_the_limit_is_refused_whether_announced_or_not():
    async def in_chunks():
        for _ in range(20):
            yield b"x" * 100

    async with client_of(ScriptedLLM(), max_body_bytes=1000) as client:
        for content in (b"x" * 1001, in_chunks()):
            response = await client.post(COMPLETIONS, content=content)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"
            assert response.headers["connection"] == "close"
        fits = json.dumps({"prompt": "x" * 900}).encode()
        assert (await client.post(COMPLETIONS, content=fits)).status_code == 200


async def test_bad_input_leaves_no_traceback_and_no_prompt_in_the_log(client, caplog):
    caplog.set_level(logging.DEBUG, logger="penstock")
    await refused(client, COMPLETIONS, {"prompt": "my secret", "nonsense": 1})
    assert (await client.post(COMPLETIONS, json={"prompt": "my secret"})).status_code == 200
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


KNOWN_NAMES = sorted(
    {
        *CompletionBody.__struct_fields__,
        *ChatBody.__struct_fields__,
        *SamplingParams.__struct_fields__,
        *IGNORED,
        *REFUSED,
    }
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS | st.sampled_from(["user", "text", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*ChatMessage.__struct_fields__, "type", "text", "1"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
PROMPT = st.sampled_from(["a", ["a", "b"], [97], [[97], [98]]])
USUAL = {COMPLETIONS: {"prompt": PROMPT}, CHAT: {"messages": st.just(HELLO)}}


@st.composite
def bodies(draw, path):
    """Usually complete, with a few fields that may hold anything."""
    names = draw(st.lists(st.sampled_from(KNOWN_NAMES) | st.text(max_size=5), max_size=3))
    usual = draw(st.fixed_dictionaries(USUAL[path]))
    return {**usual, **{name: draw(JSON) for name in names}}


@pytest.fixture(scope="module")
def post():
    """Posts a body to a server that lives for the whole module."""
    app = create_app(ScriptedLLM(), ServerSettings())
    with asyncio.Runner() as runner:

        async def send(path, content):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
                return await client.post(path, content=content)

        yield lambda path, content: runner.run(send(path, content))


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_body_whatsoever_brings_the_server_down(post, path, data):
    body = data.draw(bodies(path))
    response = post(path, json.dumps(body).encode())
    assert response.status_code in (200, 400, 404), response.text


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=60))
def test_nor_do_any_bytes(post, content):
    assert post(COMPLETIONS, content).status_code == 400


async def test_a_server_may_allow_fewer_completions_of_a_prompt(llm):
    async with client_of(llm, max_n=3) as client:
        for n, status in ((3, 200), (4, 400)):
            answer = await client.post("/v1/completions", json={"prompt": "a", "n": n})
            assert answer.status_code == status
    assert answer.json()["error"]["param"] == "n"
