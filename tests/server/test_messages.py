"""Worked examples of Anthropic's /v1/messages."""

import json

import pytest

from penstock.vocabulary.errors import Overloaded, Unavailable
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of
from tests.text.chat_models import CHATML, DEEPSEEK, QWEN3

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'


def llm_of(model, text="Hi", **script):
    return ScriptedLLM(
        Script(text, **script),
        max_model_len=4000,
        chat_template=model.source,
        special_tokens=model.special,
    )


async def ask(llm, status=200, path="/v1/messages", **body):
    body = {"model": "scripted", "max_tokens": 900, "messages": HELLO, **body}
    async with client_of(llm) as client:
        response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response


async def message(llm, **body):
    return (await ask(llm, **body)).json()


async def events(llm, **body):
    """The events of a stream: name and data, checked against each other."""
    blocks = (await ask(llm, stream=True, **body)).text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def read_by(llm):
    """The last prompt."""
    return llm.tokenizer.decode(llm.last.request.prompt_token_ids)


async def test_a_whole_answer_has_this_shape():
    llm = ScriptedLLM(Script("Hi!", num_cached=4))
    answer = await message(llm)
    assert answer.pop("id").startswith("msg_")
    assert llm.last.prompt == "<|user|>Hello<|assistant|>"
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": "Hi!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(llm.last.prompt) - 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 3,
        },
    }


async def test_a_streamed_answer_has_these_events():
    llm = ScriptedLLM(Script("Hi", num_cached=4))
    start, *others = await events(llm)
    usage = {
        "input_tokens": len(llm.last.prompt) - 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 0,
    }
    assert start["message"].pop("id").startswith("msg_")
    assert start == {
        "type": "message_start",
        "message": {
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        },
    }
    delta = {"type": "content_block_delta", "index": 0}
    assert others == [
        {"type": "ping"},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {**delta, "delta": {"type": "text_delta", "text": "H"}},
        {**delta, "delta": {"type": "text_delta", "text": "i"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {**usage, "output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


async def test_thoughts_text_and_calls_are_blocks():
    llm = llm_of(QWEN3, f"<think>\nHm.\n</think>\n\nI will look.\n{CALL}\n{CALL}")
    answer = await message(llm, tools=[WEATHER])
    thinking, text, *calls = answer["content"]
    assert thinking == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert text == {"type": "text", "text": "I will look."}
    for call in calls:
        assert call.pop("id").startswith("call_")
    assert calls == [{"type": "tool_use", "name": "get_weather", "input": {"city": "Köln"}}] * 2
    assert answer["stop_reason"] == "tool_use"


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_blocks_are_streamed_one_after_the_other(step):
    text = f"<think>\nHm.\n</think>\n\nI will look.\n{CALL}\n{CALL}"
    llm = llm_of(QWEN3, text, tokens_per_step=step)
    found = await events(llm, tools=[WEATHER])
    blocks, is_open = [], False
    for event in found:
        match event["type"]:
            case "content_block_start":
                assert not is_open and event["index"] == len(blocks)
                is_open = True
                blocks.append((event["content_block"]["type"], ""))
            case "content_block_delta":
                assert is_open and event["index"] == len(blocks) - 1
                kind, so_far = blocks[-1]
                (field,) = event["delta"].keys() - {"type"}
                blocks[-1] = (kind, so_far + event["delta"][field])
            case "content_block_stop":
                assert is_open and event["index"] == len(blocks) - 1
                is_open = False
    assert blocks == [
        ("thinking", "Hm."),
        ("text", "I will look."),
        ("tool_use", '{"city": "Köln"}'),
        ("tool_use", '{"city": "Köln"}'),
    ]
    assert [event["type"] for event in found[-3:]] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


async def test_why_an_answer_ends_is_said_in_anthropic_s_words():
    async def ending(llm, **body):
        answer = await message(llm, **body)
        return answer["stop_reason"], answer["stop_sequence"]

    llm = ScriptedLLM(Script("Hello, world"), max_model_len=40)
    assert await ending(llm, stop_sequences=["o,"], max_tokens=14) == ("stop_sequence", "o,")
    assert await ending(llm, max_tokens=3) == ("max_tokens", None)
    llm = ScriptedLLM(Script("Hello, world"), max_model_len=30)
    assert await ending(llm, max_tokens=500) == ("model_context_window_exceeded", None)


async def test_a_call_that_was_cut_is_no_object_and_its_text_is_kept():
    answer = await message(llm_of(CHATML, CALL), tools=[WEATHER], max_tokens=59)
    (call,) = answer["content"]
    assert call["input"] == {"INVALID_JSON": '{"city": "'}
    assert answer["stop_reason"] == "max_tokens"


PAST = [
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I will look."},
            {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Köln"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "Gone.", "is_error": True},
            {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
        ],
    },
]
THE_SAME_IN_CHAT = [
    {"role": "system", "content": "Be brief.\nBe kind."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "I will look.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {
                "id": "t1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "t1", "content": "Error: Gone."},
    {"role": "user", "content": "And?"},
]


async def test_a_conversation_with_tools_reads_as_in_chat_completions():
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    llm = llm_of(QWEN3)
    await message(llm, messages=PAST, system=system, tools=[WEATHER])
    tool = {"name": "get_weather", "description": "Tells the weather."}
    tool["parameters"] = WEATHER["input_schema"]
    async with client_of(llm) as client:
        body = {"messages": THE_SAME_IN_CHAT, "tools": [{"type": "function", "function": tool}]}
        await client.post("/v1/chat/completions", json=body)
    mine, theirs = (each.request.prompt_token_ids for each in llm.submissions)
    assert mine == theirs


@pytest.mark.parametrize(
    "choice, must_call, max_calls",
    [
        ({"type": "auto"}, False, None),
        ({"type": "any"}, True, None),
        ({"type": "any", "disable_parallel_tool_use": True}, True, 1),
        ({"type": "tool", "name": "get_weather"}, True, 1),
    ],
)
async def test_a_choice_of_tools_holds_the_model_to_it(choice, must_call, max_calls):
    llm = llm_of(CHATML, CALL + "\n" + CALL)
    answer = await message(llm, tools=[WEATHER], tool_choice=choice)
    assert len(answer["content"]) == (max_calls or 2)
    assert (llm.last.params.grammar is not None) == must_call


async def test_no_choice_hides_the_tools():
    llm = llm_of(CHATML, CALL)
    answer = await message(llm, tools=[WEATHER], tool_choice={"type": "none"})
    assert "get_weather" not in read_by(llm)
    assert answer["content"][0]["type"] == "text"


async def test_an_answer_that_the_client_has_begun_is_continued():
    begun = [*HELLO, {"role": "assistant", "content": "The answer is ("}]
    llm = llm_of(CHATML, "42).")
    answer = await message(llm, messages=begun)
    assert read_by(llm).endswith("assistant\nThe answer is (")
    assert answer["content"] == [{"type": "text", "text": "42)."}]
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "The answer"},
    ]
    llm = llm_of(QWEN3, " is 42.")
    found = await events(llm, messages=[*HELLO, {"role": "assistant", "content": blocks}])
    assert read_by(llm).endswith("<think>\nHm.\n</think>\n\nThe answer")
    texts = [event["delta"].get("text") for event in found if "index" in event and "delta" in event]
    assert "".join(texts) == " is 42."


async def test_thinking_is_a_variable_of_the_template():
    llm = llm_of(QWEN3)
    await message(llm, thinking={"type": "disabled"})
    assert "<think>\n\n</think>" in read_by(llm)
    await message(llm, thinking={"type": "enabled", "budget_tokens": 1024})
    assert "<think>" not in read_by(llm)


async def test_thoughts_that_the_template_begins_are_thoughts():
    answer = await message(llm_of(DEEPSEEK, "Hm.</think>Hi"))
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]


async def test_sampling_options_reach_the_engine_and_defaults_are_the_model_s():
    llm = ScriptedLLM(sampling_defaults={"temperature": 0.6, "top_k": 20})
    await message(llm, top_p=0.5, top_k=7, max_tokens=5)
    params = llm.last.params
    assert (params.temperature, params.top_p, params.top_k) == (0.6, 0.5, 7)
    assert params.max_tokens == 5


async def test_an_answer_may_have_to_follow_a_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    llm = ScriptedLLM(Script('{"a": 1}'))
    await message(llm, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(llm.last.params.grammar.text) == schema


async def test_what_anthropic_s_clients_send_without_meaning_is_accepted():
    answer = await message(
        ScriptedLLM(),
        metadata={"user_id": "u"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        stop_sequences=None,
    )
    assert answer["content"]


async def test_tokens_are_counted_as_the_model_would_read_them():
    llm = llm_of(CHATML)
    body = {"system": "Be brief.", "tools": [WEATHER]}
    await message(llm, **body)
    async with client_of(llm) as client:
        told = await client.post(
            "/v1/messages/count_tokens", json={"model": "scripted", "messages": HELLO, **body}
        )
    assert told.json() == {"input_tokens": len(llm.last.request.prompt_token_ids)}


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}


@pytest.mark.parametrize(
    "body, said",
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "image"),
        ({"messages": [*HELLO, {"role": "assistant", "content": []}]}, "no answer to continue"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool"),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"container": "c"}, "container"),
        ({"output_config": {"effort": "low"}}, "effort"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, "keep"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0]",
        ),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "prompt is too long: 5"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_anthropic_s_words(body, said):
    document = (await ask(llm_of(CHATML), status=400, **body)).json()
    assert document["type"] == "error"
    assert document["error"]["type"] == "invalid_request_error"
    assert said in document["error"]["message"]
    assert document["request_id"]


@pytest.mark.parametrize(
    "failure, status, kind",
    [
        (Overloaded("The queue is full.", retry_after_s=3), 429, "rate_limit_error"),
        (Unavailable("The engine is being started again."), 503, "overloaded_error"),
        (ValueError("a bug"), 500, "api_error"),
    ],
)
async def test_failures_have_anthropic_s_names(failure, status, kind):
    llm = ScriptedLLM()
    llm.refusal = failure
    response = await ask(llm, status=status)
    document = response.json()
    assert document["error"]["type"] == kind
    assert document["request_id"] == response.headers["request-id"]
    assert response.headers.get("retry-after") == {429: "3", 503: "5"}.get(status)


async def test_an_unknown_model_is_not_found():
    document = (await ask(ScriptedLLM(), status=404, model="other")).json()
    assert document["error"]["type"] == "not_found_error"


async def test_a_failure_in_a_stream_is_an_event():
    *_, last = await events(ScriptedLLM(Script("Hello", fails_after=2)))
    assert last["type"] == "error"
    assert last["error"]["type"] == "api_error"
    assert "died" in last["error"]["message"]
