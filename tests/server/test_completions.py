"""Worked examples of /v1/completions."""

import pytest

from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events


async def completion(llm, **body):
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(llm, **body):
    async with client_of(llm) as client:
        response = await client.post("/v1/completions", json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return events(response.text)


async def test_a_whole_answer_has_this_shape():
    llm = ScriptedLLM(Script("Hi!", num_cached=2))
    answer = await completion(llm, model="scripted", prompt="abc")
    assert answer.pop("id").startswith("cmpl-")
    assert answer.pop("created") > 1_700_000_000
    assert answer.pop("system_fingerprint").startswith("penstock-")
    assert answer == {
        "object": "text_completion",
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "text": "Hi!",
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }
    assert llm.last.prompt == "abc"
    assert llm.cancelled == []


async def test_a_streamed_answer_has_this_shape():
    first, *others = await streamed(ScriptedLLM(Script("Hi")), prompt="abc")
    assert first["id"].startswith("cmpl-")
    head = {key: first[key] for key in ("id", "created", "system_fingerprint")}
    common = {**head, "object": "text_completion", "model": "scripted"}
    nothing = {"logprobs": None, "finish_reason": None, "stop_reason": None}
    assert [first, *others] == [
        {**common, "choices": [{"index": 0, "text": "H", **nothing}]},
        {**common, "choices": [{"index": 0, "text": "i", **nothing, "finish_reason": "stop"}]},
        "[DONE]",
    ]


async def test_usage_comes_in_an_event_of_its_own_and_is_null_in_the_others():
    chunks = await streamed(
        ScriptedLLM(Script("Hi", num_cached=1)),
        prompt="abc",
        stream_options={"include_usage": True},
    )
    assert [chunk["usage"] for chunk in chunks[:2]] == [None, None]
    assert chunks[2]["choices"] == []
    assert chunks[2]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert chunks[3] == "[DONE]"


async def test_without_max_tokens_sixteen_are_generated():
    answer = await completion(ScriptedLLM(Script("x" * 50)), prompt="abc")
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 16, "length")


async def test_a_model_s_own_defaults_hold_where_the_client_says_nothing():
    llm = ScriptedLLM(sampling_defaults={"temperature": 0.6, "top_k": 20, "top_p": 0.9})
    await completion(llm, prompt="abc", top_p=0.5, top_k=None)
    params = llm.last.params
    assert (params.temperature, params.top_k, params.top_p) == (0.6, 20, 0.5)


async def test_a_stop_string_ends_the_text_and_is_named():
    answer = await completion(ScriptedLLM(Script("one two three")), prompt="a", stop=["two", "x"])
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
        "one ",
        "stop",
        "two",
    )


@pytest.mark.parametrize("tokens_per_step", [1, 9])
async def test_a_special_token_that_ends_the_text_is_as_little_part_of_it_as_a_stop_string(
    tokens_per_step,
):
    """As in vLLM, whether special tokens are to be seen or not."""
    script = Script("a<|b|>c<|end|>", tokens_per_step=tokens_per_step)
    llm = ScriptedLLM(script, special_tokens=("<|b|>",))
    for options, text in (
        ({}, "ac"),
        ({"skip_special_tokens": False}, "a<|b|>c"),
        ({"skip_special_tokens": False, "include_stop_str_in_output": True}, "a<|b|>c<|end|>"),
    ):
        answer = await completion(llm, prompt="a", **options)
        assert answer["choices"][0]["text"] == text
        assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("tokens_per_step", [1, 2, 7])
async def test_no_stop_string_ends_the_text_before_min_tokens(tokens_per_step):
    """As in vLLM (https://github.com/vllm-project/vllm/pull/22014), and in MII."""
    llm = ScriptedLLM(Script("a, b, c", tokens_per_step=tokens_per_step))
    answer = await completion(llm, prompt="a", stop=[", "], min_tokens=3)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["stop_reason"]) == ("a, b", ", ")
    for chunk in (await streamed(llm, prompt="a", stop=[", "], min_tokens=3))[:-1]:
        assert chunk["choices"][0]["text"] in "a, b"


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("abc", ["abc"]),
        (["abc", "de"], ["abc", "de"]),
        ([97, 98], ["ab"]),
        ([[97, 98], [99]], ["ab", "c"]),
    ],
)
async def test_a_prompt_is_text_or_tokens_one_or_several(prompt, expected):
    llm = ScriptedLLM()
    await completion(llm, prompt=prompt)
    assert [submission.prompt for submission in llm.submissions] == expected


def answer_with_prompt(request):
    return Script(bytes(request.prompt_token_ids).decode().upper())


async def test_choices_are_numbered_prompt_by_prompt():
    body = {"prompt": ["ab", "cd", "e"], "n": 2}
    whole = await completion(ScriptedLLM(answer_with_prompt), **body)
    texts = [(choice["index"], choice["text"]) for choice in whole["choices"]]
    assert texts == [(0, "AB"), (1, "AB"), (2, "CD"), (3, "CD"), (4, "E"), (5, "E")]
    assert whole["usage"]["prompt_tokens"] == 5
    assert whole["usage"]["completion_tokens"] == 10
    assert assembled(await streamed(ScriptedLLM(answer_with_prompt), **body)) == dict(texts)


def assembled(chunks):
    texts = {}
    for chunk in chunks[:-1]:
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


async def test_half_a_character_is_never_sent():
    chunks = await streamed(ScriptedLLM(Script("é日👍")), prompt="a")
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["é", "日", "👍"]


async def test_an_echo_puts_the_prompt_first():
    llm = ScriptedLLM(Script("Hi"))
    body = {"prompt": ["abc", "de"], "echo": True}
    answer = await completion(llm, **body)
    assert [choice["text"] for choice in answer["choices"]] == ["abcHi", "deHi"]
    assert assembled(await streamed(llm, **body)) == {0: "abcHi", 1: "deHi"}


async def test_token_ids_are_echoed_as_text():
    answer = await completion(ScriptedLLM(Script("Hi")), prompt=[97, 98], echo=True)
    assert answer["choices"][0]["text"] == "abHi"


LOGPROBS_OF_HI = {
    "tokens": ["H", "i"],
    "token_logprobs": [-0.5, -0.5],
    "top_logprobs": [{"H": -0.5, "I": -1.5}, {"i": -0.5, "j": -1.5}],
    "text_offset": [0, 1],
}


async def test_logprobs_have_this_shape():
    llm = ScriptedLLM(Script("Hi"))
    answer = await completion(llm, prompt="a", logprobs=2)
    assert answer["choices"][0]["logprobs"] == LOGPROBS_OF_HI
    assert joined_logprobs(await streamed(llm, prompt="a", logprobs=2)) == LOGPROBS_OF_HI


def joined_logprobs(chunks):
    joined = {}
    for chunk in chunks[:-1]:
        for name, values in chunk["choices"][0]["logprobs"].items():
            joined.setdefault(name, []).extend(values)
    return joined


async def test_logprobs_of_zero_report_the_chosen_token_alone():
    answer = await completion(ScriptedLLM(Script("Hi")), prompt="a", logprobs=0)
    assert answer["choices"][0]["logprobs"]["top_logprobs"] == [{"H": -0.5}, {"i": -0.5}]


async def test_an_echo_with_logprobs_reports_the_prompt_too_but_not_its_first_token():
    llm = ScriptedLLM(Script("Hi"))
    expected = {
        "tokens": ["a", "b", "c", "H", "i"],
        "token_logprobs": [None, -0.5, -0.5, -0.5, -0.5],
        "top_logprobs": [None, {"b": -0.5}, {"c": -0.5}, {"H": -0.5}, {"i": -0.5}],
        "text_offset": [0, 1, 2, 3, 4],
    }
    body = {"prompt": "abc", "echo": True, "logprobs": 1}
    answer = await completion(llm, **body)
    assert answer["choices"][0]["logprobs"] == expected
    assert llm.last.params.prompt_logprobs == 1
    assert joined_logprobs(await streamed(llm, **body)) == expected


async def test_every_choice_echoes_the_logprobs_of_the_prompt():
    body = {"prompt": "abc", "echo": True, "logprobs": 1, "n": 2}
    answer = await completion(ScriptedLLM(Script("Hi")), **body)
    first, second = (choice["logprobs"] for choice in answer["choices"])
    assert first == second
    assert first["tokens"] == ["a", "b", "c", "H", "i"]
    chunks = await streamed(ScriptedLLM(Script("Hi")), **body)
    assert assembled(chunks) == {0: "abcHi", 1: "abcHi"}


@pytest.mark.parametrize("prompt", ["abc", "a"])
async def test_an_echo_of_no_new_token_scores_a_text(prompt):
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0}
    answer = await completion(ScriptedLLM(Script("Hi")), **body)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (prompt, "length")
    assert choice["logprobs"]["tokens"] == list(prompt)
    assert answer["usage"]["completion_tokens"] == 0
    chunks = await streamed(ScriptedLLM(Script("Hi")), **body)
    assert assembled(chunks) == {0: prompt}


async def test_parts_of_a_character_have_offsets_and_names_of_their_own():
    answer = await completion(ScriptedLLM(Script("aé!")), prompt="x", logprobs=0)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xa9", "!"]
    assert logprobs["text_offset"] == [0, 1, 1, 2]


async def test_prompt_logprobs_are_reported_as_vllm_does():
    answer = await completion(ScriptedLLM(Script("Hi")), prompt="ab", prompt_logprobs=2)
    assert answer["choices"][0]["prompt_logprobs"] == [
        None,
        {
            "98": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
            "99": {"logprob": -1.5, "rank": 2, "decoded_token": "c"},
        },
    ]


async def test_priority_and_cache_salt_reach_the_engine():
    llm = ScriptedLLM()
    await completion(llm, prompt="abc", priority=-3, cache_salt="tenant")
    assert (llm.last.request.priority, llm.last.request.salt) == (-3, "tenant")


async def test_the_served_name_may_differ_from_the_model_s():
    async with client_of(ScriptedLLM(), served_model_name="other") as client:
        body = {"model": "other", "prompt": "abc"}
        answer = (await client.post("/v1/completions", json=body)).json()
    assert answer["model"] == "other"


async def test_trivial_values_of_unsupported_options_pass():
    answer = await completion(ScriptedLLM(), prompt="abc", best_of=2, n=2, suffix="", functions=[])
    assert len(answer["choices"]) == 2


async def test_a_long_prompt_is_tokenized_off_the_event_loop():
    llm = ScriptedLLM(max_model_len=100_000)
    answer = await completion(llm, prompt="x" * 20_000)
    assert answer["usage"]["prompt_tokens"] == 20_000


async def test_the_best_of_several_are_answered_likeliest_first():
    llm = ScriptedLLM(Script("Hi", mean_logprobs=(-2.0, -0.25, -1.0)))
    answer = await completion(llm, prompt=["a", "b"], n=2, best_of=3, logprobs=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    means = [choice["logprobs"]["token_logprobs"] for choice in answer["choices"]]
    assert means == [[-0.25, -0.25], [-1.0, -1.0]] * 2
    assert answer["usage"]["completion_tokens"] == 2 * 3 * 2
    (choice,) = (await completion(llm, prompt="a", best_of=3, echo=True))["choices"]
    assert (choice["text"], choice["logprobs"]) == ("aHi", None)


async def test_only_the_end_of_a_prompt_is_kept_if_told_so():
    llm = ScriptedLLM(max_model_len=20)
    answer = await completion(llm, prompt="abcdef", truncate_prompt_tokens=2, echo=True)
    assert llm.last.prompt == "ef"
    assert answer["choices"][0]["text"] == "efHello!"
    await completion(llm, prompt="a" * 100, truncate_prompt_tokens=-1, max_tokens=15)
    assert llm.last.prompt == "a" * 5
    await completion(llm, prompt=[97, 98, 99], truncate_prompt_tokens=-1)
    assert llm.last.prompt == "abc"


async def test_token_ids_are_reported_beside_the_text_if_asked_for():
    llm = ScriptedLLM(Script("Hi"))
    (choice,) = (await completion(llm, prompt="ab", return_token_ids=True))["choices"]
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([97, 98], [72, 105])
    chunks = await streamed(llm, prompt="ab", return_token_ids=True)
    first, second = (chunk["choices"][0] for chunk in chunks[:-1])
    assert (first["prompt_token_ids"], first["token_ids"]) == ([97, 98], [72])
    assert ("prompt_token_ids" in second, second["token_ids"]) == (False, [105])


async def test_log_probabilities_may_name_tokens_by_their_ids():
    llm = ScriptedLLM(Script("Hi"))
    options = {"prompt": "ab", "logprobs": 1, "return_tokens_as_token_ids": True}
    (choice,) = (await completion(llm, **options, echo=True))["choices"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{id_}" for id_ in (97, 98, 72, 105)]
    assert choice["logprobs"]["top_logprobs"][2] == {"token_id:72": -0.5}
    chunks = await streamed(llm, **options)
    assert chunks[0]["choices"][0]["logprobs"]["tokens"] == ["token_id:72"]
