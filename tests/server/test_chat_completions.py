"""Worked examples of /v1/chat/completions."""

import pytest

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events

HELLO = [{"role": "user", "content": "Hello"}]


async def chat(llm, **body):
    async with client_of(llm) as client:
        response = await client.post("/v1/chat/completions", json={"messages": HELLO, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(llm, **body):
    body = {"messages": HELLO, "stream": True, **body}
    async with client_of(llm) as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return events(response.text)


async def test_a_whole_answer_has_this_shape():
    llm = ScriptedLLM(Script("Hi!"))
    answer = await chat(llm, model="scripted")
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer.pop("created") > 1_700_000_000
    assert answer.pop("system_fingerprint").startswith("penstock-")
    assert llm.last.prompt == "<|user|>Hello<|assistant|>"
    num_prompt = len(llm.last.prompt)
    assert answer == {
        "object": "chat.completion",
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": 3,
            "total_tokens": num_prompt + 3,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_a_streamed_answer_tells_the_role_then_the_text_then_the_end():
    chunks = await streamed(ScriptedLLM(Script("Hi")))
    assert {chunk["object"] for chunk in chunks[:-1]} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1
    nothing = {"index": 0, "logprobs": None, "finish_reason": None}
    opening = {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0] for chunk in chunks[:-1]] == [
        {**nothing, "delta": opening},
        {**nothing, "delta": {"content": "H"}},
        {**nothing, "delta": {"content": "i"}},
        {**nothing, "delta": {}, "finish_reason": "stop", "stop_reason": None},
    ]
    assert chunks[-1] == "[DONE]"


async def test_every_choice_is_streamed_under_its_index():
    chunks = await streamed(ScriptedLLM(Script("Hi")), n=3, stream_options={"include_usage": True})
    texts = {0: "", 1: "", 2: ""}
    for chunk in chunks[:-2]:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "Hi", 1: "Hi", 2: "Hi"}
    assert chunks[-2]["usage"]["completion_tokens"] == 6


async def test_usage_so_far_comes_with_every_event_if_asked_for():
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await streamed(ScriptedLLM(Script("Hi")), stream_options=options)
    counted = [chunk["usage"]["completion_tokens"] for chunk in chunks[:-1]]
    assert counted == [1, 1, 2, 2, 2]  # the role comes with the first token
    assert chunks[-2]["choices"] == [] and chunks[-1] == "[DONE]"
    chunks = await streamed(
        ScriptedLLM(Script("Hi")), stream_options={"continuous_usage_stats": True}
    )
    assert not any("usage" in chunk for chunk in chunks[:-1])


async def test_an_answer_that_the_client_has_begun_is_continued():
    llm = ScriptedLLM(Script("42)."))
    begun = [*HELLO, {"role": "assistant", "content": "The answer is ("}]
    answer = await chat(llm, messages=begun, continue_final_message=True)
    assert llm.last.prompt == "<|user|>Hello<|assistant|>The answer is ("
    assert answer["choices"][0]["message"]["content"] == "42)."
    async with client_of(llm) as client:
        body = {"messages": begun, "continue_final_message": True}
        told = (await client.post("/tokenize", json=body)).json()
        assert bytes(told["tokens"]).decode() == llm.last.prompt
        schema = {"guided_json": {"type": "object"}}
        refused = await client.post("/v1/chat/completions", json={**body, **schema})
    assert refused.json()["error"]["param"] == "guided_json"


async def test_without_a_limit_the_rest_of_the_context_may_be_filled():
    llm = ScriptedLLM(max_model_len=100)
    await chat(llm, min_tokens=20)
    assert llm.last.params.max_tokens == 100 - len("<|user|>Hello<|assistant|>")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_has_two_names(name):
    answer = await chat(ScriptedLLM(Script("Hello")), **{name: 2})
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("He", "length")


LOGPROBS_OF_HI = {
    "content": [
        {
            "token": "H",
            "logprob": -0.5,
            "bytes": [72],
            "top_logprobs": [
                {"token": "H", "logprob": -0.5, "bytes": [72]},
                {"token": "I", "logprob": -1.5, "bytes": [73]},
            ],
        },
        {
            "token": "i",
            "logprob": -0.5,
            "bytes": [105],
            "top_logprobs": [
                {"token": "i", "logprob": -0.5, "bytes": [105]},
                {"token": "j", "logprob": -1.5, "bytes": [106]},
            ],
        },
    ],
    "refusal": None,
}


async def test_logprobs_have_this_shape():
    llm = ScriptedLLM(Script("Hi"))
    answer = await chat(llm, logprobs=True, top_logprobs=2)
    assert answer["choices"][0]["logprobs"] == LOGPROBS_OF_HI
    chunks = await streamed(llm, logprobs=True, top_logprobs=2)
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks[:-1]]
    content = [entry for logprobs in found if logprobs for entry in logprobs["content"]]
    assert content == LOGPROBS_OF_HI["content"]


async def test_logprobs_may_come_without_the_likeliest_tokens():
    answer = await chat(ScriptedLLM(Script("Hi")), logprobs=True)
    assert [e["top_logprobs"] for e in answer["choices"][0]["logprobs"]["content"]] == [[], []]


async def test_prompt_logprobs_stand_beside_the_choices():
    llm = ScriptedLLM(Script("Hi"))
    answer = await chat(llm, prompt_logprobs=0)
    assert len(answer["prompt_logprobs"]) == len(llm.last.prompt)
    assert answer["prompt_logprobs"][0] is None


async def test_text_parts_are_joined_and_past_answers_may_carry_what_clients_keep_of_them():
    llm = ScriptedLLM()
    past = {"role": "assistant", "content": "Yes?", "refusal": None, "annotations": []}
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    await chat(llm, messages=[*HELLO, past, {"role": "user", "content": parts, "name": "Ann"}])
    assert llm.last.prompt == "<|user|>Hello<|assistant|>Yes?<|user|>one\ntwo<|assistant|>"


async def test_what_real_clients_send_without_meaning_is_accepted():
    answer = await chat(
        ScriptedLLM(),
        user="u",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        safety_identifier="s",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        parallel_tool_calls=True,
        response_format={"type": "text"},
        modalities=["text"],
        tool_choice="none",
        functions=None,
    )
    assert answer["choices"]


async def test_token_ids_are_reported_beside_the_answer_if_asked_for():
    llm = ScriptedLLM(Script("Hi"))
    answer = await chat(llm, return_token_ids=True)
    assert answer["prompt_token_ids"] == llm.last.request.prompt_token_ids
    assert answer["choices"][0]["token_ids"] == [72, 105]
    first, *others = (await streamed(llm, return_token_ids=True))[:-1]
    assert first["prompt_token_ids"] == llm.last.request.prompt_token_ids
    assert not any("prompt_token_ids" in chunk for chunk in others)
    streamed_ids = [id_ for chunk in others for id_ in chunk["choices"][0].get("token_ids", ())]
    assert streamed_ids == [72, 105]


async def test_log_probabilities_may_name_tokens_by_their_ids():
    answer = await chat(
        ScriptedLLM(Script("H")), logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True
    )
    (entry,) = answer["choices"][0]["logprobs"]["content"]
    assert entry["token"] == entry["top_logprobs"][0]["token"] == "token_id:72"


async def test_only_the_end_of_a_conversation_is_kept_if_told_so():
    llm = ScriptedLLM()
    await chat(llm, truncate_prompt_tokens=5)
    assert llm.last.prompt == "ant|>"
