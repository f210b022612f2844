"""Every failure as TGI's clients know it: status, type and text."""

import pytest

from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import Overloaded, SettingsError, Unavailable
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events

BEST_OF_2 = {"best_of": 2, "do_sample": True}


def chat_instance(**options):
    return {"instances": [{"messages": [{"role": "user", "content": "x"}], **options}]}


async def refusal(body, path="/generate", llm=None, **settings) -> tuple[int, str, str]:
    llm = llm or ScriptedLLM()
    async with client_of(llm, **settings) as client:
        answer = await client.post(path, json=body)
    told = answer.json()
    assert told.keys() == {"error", "error_type"}
    return answer.status_code, told["error_type"], told["error"]


@pytest.mark.parametrize(
    "parameters, problem",
    [
        ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 0}, "`best_of` must be > 0 and <= 2. Given: 0"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({**BEST_OF_2, "seed": 1}, "`seed` must not be set when `best_of` > 1"),
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"repetition_penalty": -1}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 1}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 0}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 999. Given: 0"),
        ({"grammar": {"type": "json", "value": {}}}, "grammar is not valid: Grammar must have"),
        ({"grammar": {"type": "json", "value": "{"}}, "grammar is not valid: "),
        (
            {"max_new_tokens": 999},
            "`inputs` tokens + `max_new_tokens` must be <= 1000. "
            "Given: 2 `inputs` tokens and 999 `max_new_tokens`",
        ),
        ({"seed": 2**64}, "`seed` must be less than 2^64"),
        ({"top_k": 2**70}, "top_k: Expected `int` <= 2147483647"),
        ({"adapter_id": "mine"}, "`adapter_id` is not supported yet"),
        ({"temprature": 1}, "parameters: Object contains unknown field `temprature`"),
        ({"temperature": "hot"}, "parameters.temperature: Expected `float | null`, got `str`"),
    ],
)
async def test_a_parameter_out_of_range_is_refused_in_tgi_s_words(parameters, problem):
    status, kind, text = await refusal({"inputs": "ab", "parameters": parameters})
    assert (status, kind) == (422, "validation")
    assert text.startswith(f"Input validation error: {problem}")


@pytest.mark.parametrize(
    "parameters, problem",
    [
        (BEST_OF_2, "`best_of` != 1 is not supported when streaming tokens"),
        (
            {"decoder_input_details": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
    ],
)
async def test_what_cannot_be_streamed_is_refused(parameters, problem):
    answer = await refusal({"inputs": "ab", "parameters": parameters}, "/generate_stream")
    assert answer == (422, "validation", f"Input validation error: {problem}")


@pytest.mark.parametrize(
    "body, path, problem",
    [
        ({"inputs": ""}, "/generate", "`inputs` cannot be empty"),
        ({}, "/", "inputs: Object missing required field"),
        ({"inputs": "x" * 1000}, "/generate", "`inputs` must have less than 1000 tokens. Given"),
        ({"inputs": "x", "stream": True}, "/generate", "`stream` is decided by the path"),
        ({"instances": []}, "/vertex", "instances: Expected `array` of length >= 1"),
        ({"instances": [{"inputs": "x"}] * 5}, "/vertex", "Number of instances exceeds"),
        (chat_instance(n=2), "/vertex", "an instance is answered by one text: ask for n at"),
        (chat_instance(logprobs=True), "/vertex", "an instance is answered by one text"),
        (chat_instance(use_beam_search=True), "/vertex", "an instance is answered by one text"),
    ],
)
async def test_a_body_that_cannot_be_answered_is_refused(body, path, problem):
    status, kind, text = await refusal(body, path)
    assert (status, kind) == (422, "validation")
    assert text.startswith(f"Input validation error: {problem}")


async def test_best_of_may_be_forbidden_altogether():
    _, _, text = await refusal({"inputs": "x", "parameters": BEST_OF_2}, max_best_of=1)
    assert text.endswith("`best_of` != 1 is not allowed for this endpoint")


async def test_limits_beyond_what_the_engine_can_do_are_refused_at_the_start():
    with pytest.raises(SettingsError, match="max_top_n_tokens is at most 20, not 21"):
        ServerSettings(max_top_n_tokens=21)


async def test_a_template_that_refuses_has_a_type_of_its_own():
    llm = ScriptedLLM(chat_template="{{ raise_exception('No.') }}")
    body = {"messages": [{"role": "user", "content": "x"}]}
    answer = await refusal(body, "/chat_tokenize", llm)
    assert answer == (422, "template_error", "Template error: No.")


async def test_a_full_queue_is_an_overloaded_model():
    llm = ScriptedLLM()
    llm.refusal = Overloaded("Too many wait.", retry_after_s=3)
    async with client_of(llm) as client:
        answer = await client.post("/generate", json={"inputs": "x"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.json()["error_type"] == "overloaded"
    assert answer.json()["error"].startswith("Model is overloaded")


async def test_an_engine_that_is_away_is_unhealthy():
    llm = ScriptedLLM()
    llm.refusal = Unavailable("The engine is being started again.")
    status, kind, text = await refusal({"inputs": "x"}, llm=llm)
    assert (status, kind) == (503, "healthcheck")
    assert text.startswith("unhealthy")


async def test_an_engine_that_dies_is_a_failed_generation_before_and_within_a_stream():
    llm = ScriptedLLM(Script(fails_after=0))
    for path in ("/generate", "/generate_stream"):
        status, kind, text = await refusal({"inputs": "x"}, path, llm)
        assert (status, kind) == (424, "generation")
        assert text.startswith("Request failed during generation: The engine process died")
    async with client_of(ScriptedLLM(Script(fails_after=2))) as client:
        answer = await client.post("/generate_stream", json={"inputs": "x"})
    *tokens, failure = events(answer.text)
    assert len(tokens) == 2
    assert failure["error_type"] == "generation"


async def test_one_instance_that_is_refused_takes_the_others_with_it():
    llm = ScriptedLLM()
    llm.num_until_refusal = 1
    llm.refusal = Overloaded("Too many wait.", retry_after_s=3)
    status, _, _ = await refusal({"instances": [{"inputs": "x"}] * 2}, "/vertex", llm)
    assert status == 429
    assert not llm.in_flight


async def test_the_document_names_the_statuses_of_this_dialect():
    async with client_of(ScriptedLLM()) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"422", "424", "429", "503"} <= paths["/generate"]["post"]["responses"].keys()
    assert "400" not in paths["/generate"]["post"]["responses"]
