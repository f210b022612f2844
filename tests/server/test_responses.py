"""Worked examples of /v1/responses."""

import json

import pytest

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of
from tests.text.chat_models import CHATML, QWEN3

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
IMAGE = {"type": "input_image", "image_url": "https://example.org/a.png"}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'


def llm_of(model, text="Hi", **script):
    return ScriptedLLM(
        Script(text, **script),
        max_model_len=4000,
        chat_template=model.source,
        special_tokens=model.special,
    )


async def ask(llm, status=200, **body):
    async with client_of(llm) as client:
        response = await client.post("/v1/responses", json={"input": "Hello", **body})
    assert response.status_code == status, response.text
    return response


async def answer_of(llm, **body):
    return (await ask(llm, **body)).json()


async def events_of(llm, **body):
    """The events of a stream, whose numbers and names have been checked."""
    blocks = (await ask(llm, stream=True, **body)).text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1].pop("sequence_number") == number
    return found


async def test_a_whole_answer_has_this_shape():
    llm = ScriptedLLM(Script("Hi!", num_cached=4))
    answer = await answer_of(llm, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5)
    assert answer.pop("id").startswith("resp_")
    assert answer.pop("created_at") > 1_700_000_000
    (item,) = answer.pop("output")
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi!", "annotations": [], "logprobs": []}],
    }
    assert llm.last.prompt == "<|system|>Be brief.<|user|>Hello<|assistant|>"
    num_prompt = len(llm.last.prompt)
    assert answer == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "metadata": {"a": "b"},
        "model": "scripted",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 0.5,
        "text": {"format": None, "verbosity": None},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": num_prompt,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": num_prompt + 3,
        },
    }


async def test_a_streamed_text_has_these_events():
    created, in_progress, *others, completed = await events_of(ScriptedLLM(Script("Hi")))
    assert (created["type"], in_progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["usage"] is None
    item_id = others[0]["item"]["id"]
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    message = {"type": "message", "id": item_id, "role": "assistant"}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    whole = {**part, "text": "Hi"}
    added = {**message, "status": "in_progress", "content": []}
    done = {**message, "status": "completed", "content": [whole]}
    assert others == [
        {"type": "response.output_item.added", "output_index": 0, "item": added},
        {"type": "response.content_part.added", **place, "part": part},
        {"type": "response.output_text.delta", **place, "delta": "H", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "i", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hi", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]
    assert completed["type"] == "response.completed"
    assert completed["response"]["output"] == [done]
    assert completed["response"]["usage"]["output_tokens"] == 2


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_thoughts_text_and_calls_are_items_one_after_the_other(step):
    text = f"<think>\nHm.\n</think>\n\nI will look.\n{CALL}\n{CALL}"
    llm = llm_of(QWEN3, text, tokens_per_step=step)
    found = await events_of(llm, tools=[WEATHER])
    output = found[-1]["response"]["output"]
    thoughts, message, *calls = output
    assert thoughts["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert thoughts["summary"] == []
    assert message["content"][0]["text"] == "I will look."
    assert [(c["name"], c["arguments"]) for c in calls] == [
        ("get_weather", '{"city": "Köln"}'),
        ("get_weather", '{"city": "Köln"}'),
    ]
    assert all(call["call_id"].startswith("call_") for call in calls)
    assert found[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}

    sums = dict.fromkeys(range(len(output)), "")
    for event in found:
        if event["type"].endswith(".delta"):
            assert event["item_id"] == output[event["output_index"]]["id"]
            sums[event["output_index"]] += event["delta"]
    assert list(sums.values()) == ["Hm.", "I will look.", *['{"city": "Köln"}'] * 2]
    items = [e for e in found if e["type"].startswith("response.output_item.")]
    assert [(e["type"].rpartition(".")[2], e["output_index"]) for e in items] == [
        (what, index) for index in range(4) for what in ("added", "done")
    ]
    assert [e["item"] for e in items if e["type"].endswith("done")] == output
    names = [e["type"] for e in found]
    assert names.count("response.function_call_arguments.done") == 2
    assert names.count("response.reasoning_text.done") == 1

    whole = (await answer_of(llm, tools=[WEATHER]))["output"]
    assert without_ids(whole) == without_ids(output)


def without_ids(items):
    return [
        {name: value for name, value in item.items() if name not in ("id", "call_id")}
        for item in items
    ]


async def test_an_answer_that_is_cut_is_incomplete():
    answer = await answer_of(ScriptedLLM(Script("Hello")), max_output_tokens=2)
    assert answer["status"] == answer["output"][0]["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    *_, last = await events_of(ScriptedLLM(Script("Hello")), max_output_tokens=2)
    assert last["type"] == "response.incomplete"


async def test_a_failure_in_a_stream_ends_it_as_failed():
    response = await ask(ScriptedLLM(Script("Hello", fails_after=2)), stream=True)
    *_, failed, error = response.text.removesuffix("\n\n").split("\n\n")
    name, data = failed.split("\n")
    document = json.loads(data.removeprefix("data: "))["response"]
    assert name == "event: response.failed"
    assert (document["status"], document["error"]["code"]) == ("failed", "server_error")
    assert "died" in document["error"]["message"]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_failed"


async def test_earlier_items_read_as_in_chat_completions():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I will look.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c1",
            "name": "get_weather",
            "arguments": '{"city": "Köln"}',
            "status": "completed",
        },
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "And?"},
    ]
    function = {name: WEATHER[name] for name in ("name", "description", "parameters")}
    call = {"name": "get_weather", "arguments": '{"city": "Köln"}'}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I will look.",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "c1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "And?"},
    ]
    llm = llm_of(QWEN3)
    await answer_of(llm, input=items, instructions="Be kind.", tools=[WEATHER])
    async with client_of(llm) as client:
        body = {"messages": messages, "tools": [{"type": "function", "function": function}]}
        await client.post("/v1/chat/completions", json=body)
    mine, theirs = (each.request.prompt_token_ids for each in llm.submissions)
    assert mine == theirs


@pytest.mark.parametrize("include", [["message.output_text.logprobs"], []])
async def test_log_probabilities_come_with_the_text(include):
    llm = ScriptedLLM(Script("Hi"))
    options = {"include": include} if include else {"top_logprobs": 1}
    answer = await answer_of(llm, **options)
    entries = answer["output"][0]["content"][0]["logprobs"]
    assert [(entry["token"], entry["logprob"]) for entry in entries] == [("H", -0.5), ("i", -0.5)]
    assert [len(entry["top_logprobs"]) for entry in entries] == [0 if include else 1] * 2
    deltas = [e for e in await events_of(llm, **options) if e["type"].endswith("text.delta")]
    assert [entry for event in deltas for entry in event["logprobs"]] == entries


async def test_a_text_may_have_to_follow_a_schema():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    llm = ScriptedLLM(Script('{"a": 1}'))
    form = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    answer = await answer_of(llm, text={"format": form})
    assert json.loads(llm.last.params.grammar.text) == schema
    assert answer["text"]["format"]["name"] == "thing"


async def test_a_function_may_have_to_be_called():
    llm = llm_of(CHATML, CALL)
    choice = {"type": "function", "name": "get_weather"}
    answer = await answer_of(llm, tools=[WEATHER], tool_choice=choice)
    assert llm.last.params.grammar is not None
    assert answer["tool_choice"] == choice


async def test_what_asks_for_nothing_is_accepted():
    answer = await answer_of(
        ScriptedLLM(),
        store=True,
        background=False,
        truncation="disabled",
        previous_response_id=None,
        user="u",
        service_tier="auto",
        prompt_cache_key="k",
        include=["reasoning.encrypted_content"],
        reasoning={"summary": "auto"},
    )
    assert answer["store"] is False


@pytest.mark.parametrize(
    "body, param, said",
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "nothing is stored here"),
        ({"conversation": "conv_1"}, "conversation", "nothing is stored here"),
        ({"background": True}, "background", "nothing is stored here"),
        ({"truncation": "auto"}, "truncation", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools", "web_search run at OpenAI"),
        ({"tools": [{"type": "function"}]}, "tools", "name"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"input": []}, "input", "length"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "item_reference"),
        ({"input": [{"role": "user"}]}, "input", "content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input",
            "input_image",
        ),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort", "high"),
        ({"stream_options": {}}, "stream_options", "stream"),
        ({"max_tokens": 5}, "max_tokens", "unknown field"),
        ({"max_output_tokens": 5000}, "messages", "maximum context length"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_a_reason(body, param, said):
    error = (await ask(llm_of(CHATML), status=400, **body)).json()["error"]
    assert said in error["message"]
    assert error["param"] == param
