"""Azure ML's routes over a scripted engine: exact shapes, failures, and content safety."""

import logging

import pytest

from penstock.server.content_safety import texts_in
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import Overloaded, SettingsError
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of

CHAT = [{"role": "user", "content": "Hi"}]


def azureml(llm, **settings):
    return client_of(llm, **{"dialects": ("azureml",), **settings})


async def scored(body, llm=None, **settings):
    async with azureml(llm or ScriptedLLM(), **settings) as client:
        return await client.post("/score", json=body)


def texts(*given, **parameters):
    return {"input_data": {"input_string": [*given], "parameters": parameters}}


def echoing():
    """An engine that repeats its prompt in brackets."""
    return ScriptedLLM(lambda request: Script(f"<{bytes(request.prompt_token_ids).decode()}>"))


async def test_texts_in_the_older_shape_are_answered_by_their_numbers():
    answer = await scored(texts("a", "b", return_full_text=False), echoing())
    assert answer.status_code == 200
    assert answer.json() == [{"0": "<a>", "1": "<b>"}]


async def test_a_text_is_answered_with_itself_in_front_unless_that_is_unwanted():
    assert (await scored(texts("a"), echoing())).json() == [{"0": "a<a>"}]


async def test_texts_in_the_newer_shape_are_answered_by_a_list():
    body = {"input_data": ["a", "b"], "params": {"return_full_text": False}}
    assert (await scored(body, echoing())).json() == ["<a>", "<b>"]


async def test_a_conversation_is_answered_by_one_output():
    llm = ScriptedLLM()
    assert (await scored(texts(*CHAT), llm)).json() == {"output": "Hello!"}
    assert llm.last.prompt == "<|user|>Hi<|assistant|>"
    await scored(texts(*CHAT, add_generation_prompt=False), llm)
    assert llm.last.prompt == "<|user|>Hi"


async def test_the_parameters_reach_the_engine_under_either_of_their_names():
    llm = ScriptedLLM(sampling_defaults={"temperature": 0.3, "top_p": 0.5})
    await scored(texts("a"), llm)
    params = llm.last.params
    assert (params.max_tokens, params.temperature, params.top_p) == (256, 0.3, 0.5)
    given = {"max_gen_len": 7, "do_sample": False, "top_k": 3, "stop": ["x"], "eos_token_id": 5}
    await scored(texts("a", **given, _batch_size=8), llm)
    params = llm.last.params
    assert (params.max_tokens, params.temperature, params.top_k) == (7, 0.0, 3)
    assert (params.stop, params.stop_token_ids) == (["x"], [5])
    await scored(texts("a", max_tokens=9, stop_token_ids=[7], eos_token_id=[5, 6]), llm)
    assert (llm.last.params.max_tokens, llm.last.params.stop_token_ids) == (9, [7, 5, 6])
    await scored(texts("a", stop_token_ids=None, eos_token_id=5), llm)
    assert llm.last.params.stop_token_ids == [5]


@pytest.mark.parametrize(
    "body, problem",
    [
        ({}, "input_data: Object missing required field"),
        (texts(), "it is an empty list"),
        (texts("a", CHAT[0]), "it mixes them"),
        (texts(""), "must not be empty"),
        ({"input_data": {"columns": [], "data": []}}, "unknown field `columns`"),
        ({**texts("a"), "params": {}}, "params stand beside a list of texts"),
        (texts("a", max_new_token=5), "max_new_token. Did you mean max_new_tokens?"),
        (texts("a", max_new_tokens=5, max_gen_len=6), "max_new_tokens and max_gen_len differ"),
        (texts("a", max_tokens=[5]), "max_tokens: Expected `int | null`"),
        (texts("a", stop_token_ids=5, eos_token_id=5), "stop_token_ids: Expected `array | null`"),
        (texts("a", best_of=2), "best_of is not supported yet"),
        (texts("a", use_beam_search=True), "use_beam_search is not supported yet"),
        (texts("a", n=2), "/score answers each prompt with one text"),
        (texts("a", logprobs=2), "/score answers each prompt with one text"),
        (texts("a", max_new_tokens=2000), "maximum context length is 1000"),
        (texts("a", "b", "c"), "this server accepts 2 at a time"),
    ],
)
async def test_what_cannot_be_answered_is_an_invalid_input(body, problem):
    answer = await scored(body, max_prompts=2)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == ("Invalid input", 422)
    assert problem in error["message"]


async def test_failures_have_their_status_unless_azure_s_old_answer_is_asked_for(caplog):
    llm = ScriptedLLM(Script(fails_after=1))
    assert (await scored(texts("a"), llm)).status_code == 500
    with caplog.at_level(logging.WARNING):
        old = await scored(texts("a"), llm, legacy_score=True)
    assert (old.status_code, old.json()) == (200, {})
    assert "The engine process died" in caplog.text
    llm = ScriptedLLM()
    llm.refusal = Overloaded("Too many wait.", retry_after_s=2)
    answer = await scored(texts("a"), llm)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


async def test_asked_to_be_as_before_it_drops_unknown_parameters_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        answer = await scored(texts("a", truncation="secret"), echoing(), legacy_score=True)
    assert answer.json() == [{"0": "a<a>"}]
    assert "truncation" in caplog.text and "secret" not in caplog.text


async def test_what_the_model_was_not_deployed_for_is_a_bad_request():
    async with azureml(ScriptedLLM(), azureml_task="text-generation") as client:
        refused = [
            await client.post("/score", json=texts(*CHAT)),
            await client.post("/chat/completions", json={"messages": CHAT}),
        ]
        allowed = await client.post("/completions", json={"prompt": "a"})
    assert [answer.status_code for answer in refused] == [400, 400]
    assert refused[0].json()["error"]["code"] == "wrong_task"
    assert allowed.status_code == 200


async def test_the_probes_find_it_healthy_or_not():
    llm = ScriptedLLM()
    async with azureml(llm) as client:
        healthy = await client.get("/")
        llm.is_ready = False
        unwell = await client.get("/")
    assert (healthy.status_code, healthy.text) == (200, "Healthy")
    assert unwell.status_code == 503


async def test_the_model_is_described_and_so_are_the_routes():
    async with azureml(ScriptedLLM(), model_provider="Somebody") as client:
        info = (await client.get("/info")).json()
        paths = (await client.get("/swagger.json")).json()["paths"]
    assert info == {
        "model_name": "scripted",
        "model_type": "chat_completion",
        "model_provider_name": "Somebody",
    }
    assert {"/score", "/completions", "/chat/completions", "/v1/completions"} <= paths.keys()
    assert {"400", "422"} <= paths["/score"]["post"]["responses"].keys()


async def test_of_two_dialects_with_the_same_route_the_first_one_given_answers():
    for dialects, field in ((("azureml", "tgi"), "model_name"), (("tgi", "azureml"), "model_id")):
        async with client_of(ScriptedLLM(), dialects=dialects) as client:
            assert field in (await client.get("/info")).json()


async def test_azure_s_paths_have_azure_s_defaults_and_openai_s_their_own():
    llm = ScriptedLLM()
    async with azureml(llm) as client:
        answer = await client.post("/chat/completions", json={"messages": CHAT})
        assert answer.json()["choices"][0]["message"]["content"] == "Hello!"
        assert (llm.last.params.temperature, llm.last.params.max_tokens) == (0.7, 256)
        await client.post("/completions", json={"prompt": "a", "temperature": 0, "max_tokens": 3})
        assert (llm.last.params.temperature, llm.last.params.max_tokens) == (0.0, 3)
        await client.post("/v1/completions", json={"prompt": "a", "top_k": 4})
        assert (llm.last.params.temperature, llm.last.params.top_k) == (1.0, 4)


@pytest.mark.parametrize(
    "path, body",
    [("/completions", {"prompt": "a" * 900}), ("/chat/completions", {"messages": CHAT})],
)
async def test_azure_s_default_length_is_cut_to_the_context_as_nobody_asked_for_it(path, body):
    llm = ScriptedLLM(max_model_len=910 if "prompt" in body else 100)
    async with azureml(llm) as client:
        assert (await client.post(path, json=body)).status_code == 200
        room = llm.max_model_len - len(llm.last.request.prompt_token_ids)
        assert llm.last.params.max_tokens == room
        assert (await client.post(path, json={**body, "max_tokens": 256})).status_code == 422


async def test_azure_s_default_temperature_is_no_wish_that_a_beam_search_cannot_heed():
    top = ((72, -0.5), (73, -1.0), (74, -2.0))
    llm = ScriptedLLM(Script("Hello!", top=top))
    body = {"prompt": "a", "use_beam_search": True, "n": 2, "max_tokens": 2}
    async with azureml(llm) as client:
        header = {"extra-parameters": "pass-through"}
        answer = await client.post("/completions", json=body, headers=header)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "header, status, top_k",
    [({}, 400, None), ({"extra-parameters": "error"}, 400, None),
     ({"extra-parameters": "drop"}, 200, 0), ({"extra-parameters": "pass-through"}, 200, 4),
     ({"extra-parameters": "keep"}, 400, None)],
)  # fmt: skip
async def test_the_header_says_what_becomes_of_extra_parameters(header, status, top_k):
    llm = ScriptedLLM()
    body = {"prompt": "a", "top_k": 4}
    async with azureml(llm) as client:
        answer = await client.post("/completions", json=body, headers=header)
    assert answer.status_code == status
    if status == 200:
        assert llm.last.params.top_k == top_k
    else:
        assert answer.json()["error"]["code"] == "extra_parameters"


async def test_azure_s_paths_stream_too():
    async with azureml(ScriptedLLM()) as client:
        answer = await client.post("/chat/completions", json={"messages": CHAT, "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")


# -- content safety ------------------------------------------------------------------------------

SAFETY = f"{__name__}:let_pass"


async def let_pass(text: str, direction: str) -> bool:
    """A hook: it knows one bad word for each direction."""
    if text == "broken":
        raise RuntimeError("the service of content safety is away")
    return {"input": "bomb", "output": "Hell"}[direction] not in text


async def test_an_unsafe_prompt_never_reaches_the_engine():
    llm = ScriptedLLM()
    unsafe_chat = [{"role": "user", "content": [{"type": "text", "text": "a bomb"}]}]
    async with azureml(llm, content_safety=SAFETY) as client:
        answers = [
            await client.post("/score", json=texts("fine", "a bomb")),
            await client.post("/score", json=texts(*unsafe_chat)),
            await client.post("/completions", json={"prompt": "a bomb"}),
            await client.post("/v1/chat/completions", json={"messages": unsafe_chat}),
        ]
    assert [answer.status_code for answer in answers] == [400] * 4
    assert all(answer.json()["error"]["code"] == "content_filter" for answer in answers)
    assert not llm.submissions


async def test_an_unsafe_text_is_left_empty_and_an_unsafe_completion_is_not_sent():
    async with azureml(ScriptedLLM(), content_safety=SAFETY) as client:
        score = await client.post("/score", json=texts("a", return_full_text=False))
        chat = await client.post("/chat/completions", json={"messages": CHAT})
    assert score.json() == [{"0": ""}]
    assert chat.status_code == 400
    assert "Hello" not in chat.text


async def test_what_is_safe_passes_unchanged():
    async with azureml(echoing(), content_safety=SAFETY) as client:
        assert (await client.post("/score", json=texts("a"))).json() == [{"0": "a<a>"}]
        answer = await client.post("/completions", json={"prompt": "a"})
    assert answer.json()["choices"][0]["text"] == "<a>"


@pytest.mark.parametrize("body", [{"prompt": "a", "stream": True}, {"prompt": [97]}])
async def test_what_content_safety_cannot_read_is_refused(body):
    async with azureml(ScriptedLLM(), content_safety=SAFETY) as client:
        assert (await client.post("/completions", json=body)).status_code == 422


def test_texts_are_found_however_deep_they_are():
    value = {"a": ["x", 1, None, {"b": "y"}]}
    for _ in range(10_000):
        value = [value]
    assert texts_in(value) == {"x", "y"}


async def test_where_the_check_itself_fails_nothing_passes():
    llm = ScriptedLLM()
    async with azureml(llm, content_safety=SAFETY) as client:
        answer = await client.post("/score", json=texts("broken"))
    assert answer.status_code == 500
    assert not llm.submissions


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"content_safety": "no.such.module:check"}, "cannot be loaded"),
        ({"content_safety": f"{__name__}:texts"}, "is not an async function"),
        ({"content_safety": SAFETY, "dialects": ("azureml", "tgi")}, "the dialect azureml only"),
        ({"azureml_task": "fill-mask"}, "'fill-mask' is not served"),
    ],
)
def test_settings_that_would_not_do_what_they_say_are_refused(settings, problem):
    with pytest.raises(SettingsError, match=problem):
        azureml(ScriptedLLM(), **settings)


def test_the_settings_show_no_key():
    assert "hush" not in repr(ServerSettings(api_keys=("hush",)))
