"""Whatever a body holds, it is answered or refused; it never breaks the server."""

import asyncio
import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.routes import ANTHROPIC, OPENAI
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of
from tests.text.chat_models import QWEN3

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "b"}}\n</tool_call>'
FUNCTION = {"name": "f", "description": "F.", "parameters": SCHEMA, "strict": False}
TOOL_USE = {"type": "tool_use", "id": "x", "name": "f", "input": {}}
CONVERSATION = {
    "model": "scripted",
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        USER,
        {"role": "assistant", "content": [TOOL_USE]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "c"}]},
    ],
    "tools": [{"name": "f", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 5},
}
BODIES = {
    "/v1/completions": {
        "prompt": ["a", "b"],
        "n": 1,
        "best_of": 2,
        "logprobs": 1,
        "max_tokens": 5,
        "truncate_prompt_tokens": 3,
        "return_token_ids": True,
        "length_penalty": 1.0,
        "use_beam_search": False,
    },
    "/v1/chat/completions": {
        "messages": [USER],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "auto",
        "stream": True,
        "stream_options": {"include_usage": True},
        "add_special_tokens": True,
        "return_token_ids": True,
    },
    "/v1/responses": {
        "input": [
            USER,
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "x", "output": "c"},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "text"}},
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "stream": True,
    },
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 4},
    "/v1/watermark/detect": {"text": "Some words.", "gamma": 0.5},
    "/tokenize": {"messages": [USER], "return_token_strs": True, "add_special_tokens": False},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/v1/messages": {**CONVERSATION, "max_tokens": 50, "stop_sequences": ["x"], "stream": True},
    "/v1/messages/count_tokens": CONVERSATION,
}

WORDS = ["", "a", "text", "user", "function", "json_schema", "auto", "none", "never", "\u2028"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from([2**70, -1.5, 0.5, 1e300])
    | st.sampled_from(WORDS)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def places(value, path=()):
    """The way to everything within a body."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


@st.composite
def changed(draw, body):
    """A good body with one to three of its values replaced."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(body) if path]))
        inner = body
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = draw(ANYTHING)
    return body


def calling_llm():
    """An engine that thinks, answers and calls a tool, whatever it is asked."""
    llm = ScriptedLLM(
        Script(f"<think>\nHm.\n</think>\n\nYes.\n{CALL}", tokens_per_step=9),
        max_model_len=3000,
        chat_template=QWEN3.source,
        special_tokens=QWEN3.special,
    )
    llm.watermark_key = "secret"
    return llm


def test_every_route_with_a_body_is_tried():
    routes = (*OPENAI.endpoints, *ANTHROPIC.endpoints)
    assert {endpoint.path for endpoint in routes if endpoint.body} == BODIES.keys()


@pytest.mark.parametrize("path", BODIES)
def test_a_body_is_answered_or_refused(path):
    engine = calling_llm()

    async def post(body):
        async with client_of(engine) as client:
            return await client.post(path, json=body)

    @given(changed(BODIES[path]))
    @settings(max_examples=40, deadline=None)
    def check(body):
        response = asyncio.run(post(body))
        assert response.status_code in (200, 400, 404), response.text
        assert b"internal_error" not in response.content
        assert not engine.in_flight

    good = asyncio.run(post(BODIES[path]))
    assert good.status_code == 200, good.text
    check()
