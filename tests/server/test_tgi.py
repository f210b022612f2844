"""TGI's routes over a scripted engine: exact answers, events, headers and options."""

import httpx
import msgspec
import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from penstock.vocabulary.grammar import Grammar
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events

HEADERS = {
    "x-compute-type",
    "x-compute-characters",
    "x-compute-time",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
}


async def asked(llm, path: str, **body) -> httpx.Response:
    async with client_of(llm) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def token(text: str) -> dict:
    return {"id": ord(text), "text": text, "logprob": -0.5, "special": False}


async def test_a_text_is_continued():
    answer = await asked(ScriptedLLM(), "/generate", inputs="Say hello:")
    assert answer.json() == {"generated_text": "Hello!"}


async def test_the_headers_tell_what_it_took():
    answer = await asked(ScriptedLLM(), "/generate", inputs="Say hello:")
    assert answer.headers.keys() >= HEADERS
    assert answer.headers["x-compute-characters"] == "10"
    assert answer.headers["x-prompt-tokens"] == "10"
    assert answer.headers["x-generated-tokens"] == "6"
    times = ("x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token")
    total = float(answer.headers["x-total-time"])
    assert all(0 <= int(answer.headers[name]) <= total for name in times)


async def test_the_queue_s_time_is_what_the_engine_says():
    llm = ScriptedLLM(Script("Hi", queued_s=2.5))
    answer = await asked(llm, "/generate", inputs="x", parameters={"max_new_tokens": 2})
    assert int(answer.headers["x-queue-time"]) == pytest.approx(2500, abs=100)


async def test_details_report_every_token():
    llm = ScriptedLLM(Script("Hi"))
    parameters = {"details": True, "max_new_tokens": 5}
    answer = await asked(llm, "/generate", inputs="Say:", parameters=parameters)
    assert answer.json() == {
        "generated_text": "Hi",
        "details": {
            "finish_reason": "eos_token",
            "generated_tokens": 2,
            "seed": None,
            "prefill": [],
            "tokens": [token("H"), token("i")],
        },
    }


async def test_the_prompt_is_reported_with_the_first_of_its_log_probabilities_unknown():
    parameters = {"decoder_input_details": True, "max_new_tokens": 1}
    answer = await asked(ScriptedLLM(), "/generate", inputs="abc", parameters=parameters)
    assert answer.json()["details"]["prefill"] == [
        {"id": 97, "text": "a", "logprob": None},
        {"id": 98, "text": "b", "logprob": -0.5},
        {"id": 99, "text": "c", "logprob": -0.5},
    ]
    assert answer.json()["details"]["finish_reason"] == "length"


async def test_the_likeliest_tokens_of_each_place_are_reported():
    parameters = {"details": True, "top_n_tokens": 2, "max_new_tokens": 2}
    answer = await asked(ScriptedLLM(Script("ab")), "/generate", inputs="x", parameters=parameters)
    assert answer.json()["details"]["top_tokens"] == [
        [token("a"), {**token("b"), "logprob": -1.5}],
        [token("b"), {**token("c"), "logprob": -1.5}],
    ]


async def test_a_token_that_leaves_a_character_incomplete_has_no_text_yet():
    parameters = {"details": True}
    answer = await asked(ScriptedLLM(Script("é")), "/generate", inputs="x", parameters=parameters)
    assert [each["text"] for each in answer.json()["details"]["tokens"]] == ["", "é"]
    assert answer.json()["generated_text"] == "é"


async def test_special_tokens_show_in_tokens_and_not_in_the_text():
    llm = ScriptedLLM(Script("a<|end|>"))
    answer = (await asked(llm, "/generate", inputs="x", parameters={"details": True})).json()
    assert answer["generated_text"] == "a"
    assert answer["details"]["tokens"][-1] == {
        "id": 256,
        "text": "<|end|>",
        "logprob": -0.5,
        "special": True,
    }


async def test_a_stream_has_an_event_per_token_and_the_text_in_the_last():
    parameters = {"details": True, "top_n_tokens": 1}
    answer = await asked(
        ScriptedLLM(Script("ab")), "/generate_stream", inputs="xyz", parameters=parameters
    )
    nothing = {"generated_text": None, "details": None}
    end = {"finish_reason": "eos_token", "generated_tokens": 2, "seed": None, "input_length": 3}
    assert events(answer.text) == [
        {"index": 1, "token": token("a"), "top_tokens": [token("a")], **nothing},
        {
            "index": 2,
            "token": token("b"),
            "top_tokens": [token("b")],
            "generated_text": "ab",
            "details": end,
        },
    ]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-compute-characters"] == "3"


async def test_tokens_of_one_step_are_an_event_each():
    llm = ScriptedLLM(Script("abcd", tokens_per_step=3))
    answer = await asked(llm, "/generate_stream", inputs="x", parameters={"return_full_text": True})
    received = events(answer.text)
    assert [event["token"]["text"] for event in received] == list("abcd")
    assert [event["generated_text"] for event in received] == [None, None, None, "xabcd"]
    assert received[-1]["details"] is None


@pytest.mark.parametrize("path", ["/", "/invocations"])
async def test_the_older_door_answers_with_a_list_that_has_the_prompt(path):
    answer = await asked(ScriptedLLM(), path, inputs="Say ", parameters={"do_sample": False})
    assert answer.json() == [{"generated_text": "Say Hello!"}]
    parameters = {"return_full_text": False}
    answer = await asked(ScriptedLLM(), path, inputs="Say ", parameters=parameters)
    assert answer.json() == [{"generated_text": "Hello!"}]


async def test_the_older_door_streams_if_it_is_told_to():
    answer = await asked(ScriptedLLM(), "/", inputs="Say ", stream=True)
    assert events(answer.text)[-1]["generated_text"] == "Say Hello!"


async def test_a_stop_string_ends_the_text_and_stays_in_it():
    parameters = {"stop": ["lo"], "details": True}
    llm = ScriptedLLM()
    answer = (await asked(llm, "/generate", inputs="x", parameters=parameters)).json()
    assert answer["generated_text"] == "Hello"
    assert answer["details"]["finish_reason"] == "stop_sequence"


async def test_of_several_the_likeliest_is_the_answer_and_the_others_are_told():
    llm = ScriptedLLM()
    parameters = {"best_of": 2, "do_sample": True, "details": True}
    answer = (await asked(llm, "/generate", inputs="x", parameters=parameters)).json()
    [other] = answer["details"]["best_of_sequences"]
    assert answer["generated_text"] == other["generated_text"] == "Hello!"
    assert other["generated_tokens"] == 6
    assert other["finish_reason"] == "eos_token"
    assert other["seed"] == answer["details"]["seed"] == llm.last.params.seed
    assert llm.last.params.n == 2


@pytest.mark.parametrize(
    "parameters, temperature",
    [
        ({}, 0.0),
        ({"temperature": 1.0}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"temperature": 0.5}, 0.5),
        ({"top_k": 5}, 1.0),
        ({"top_p": 0.9}, 1.0),
        ({"typical_p": 0.9, "temperature": 0.7}, 0.7),
        (None, 1.0),
    ],
)
async def test_it_samples_only_if_something_asks_for_it_or_nothing_is_said(parameters, temperature):
    llm = ScriptedLLM(sampling_defaults={"temperature": 0.3})
    await asked(llm, "/generate", inputs="x", parameters=parameters)
    assert llm.last.params.temperature == temperature
    assert (llm.last.params.seed is None) == (temperature == 0)


async def test_every_parameter_reaches_the_engine():
    llm = ScriptedLLM()
    given = {
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.5,
        "top_k": 7,
        "top_p": 0.8,
        "typical_p": 0.9,
    }
    others = {"temperature": 0.7, "max_new_tokens": 9, "stop": ["a", "b"], "seed": 3}
    parameters = {**given, **others, "watermark": True}
    await asked(llm, "/generate", inputs="x", parameters=parameters)
    params = msgspec.to_builtins(llm.last.params)
    assert {name: params[name] for name in given} == given
    assert (params["max_tokens"], params["stop"], params["seed"]) == (9, ["a", "b"], 3)
    assert params["watermark"] is True


async def test_a_seed_of_64_bits_is_reported_as_it_was_given():
    llm = ScriptedLLM()
    parameters = {"seed": 2**64 - 1, "do_sample": True, "details": True}
    answer = await asked(llm, "/generate", inputs="x", parameters=parameters)
    assert answer.json()["details"]["seed"] == 2**64 - 1
    assert llm.last.params.seed == -1


async def test_without_a_limit_the_rest_of_the_context_may_be_filled():
    llm = ScriptedLLM(max_model_len=100)
    await asked(llm, "/generate", inputs="0123456789", parameters={"max_new_tokens": None})
    assert llm.last.params.max_tokens == 90


async def test_truncating_keeps_the_end_of_the_prompt():
    llm = ScriptedLLM()
    parameters = {"truncate": 3, "return_full_text": True}
    answer = await asked(llm, "/generate", inputs="abcdef", parameters=parameters)
    assert llm.last.prompt == "def"
    assert answer.json()["generated_text"] == "abcdefHello!"


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


SCHEMA_TEXT = msgspec.json.encode(SCHEMA).decode()


@pytest.mark.parametrize(
    "kind, value, expected",
    [
        ("regex", "[0-9]+", Grammar.regex("[0-9]+")),
        ("json", SCHEMA, Grammar.json_schema(SCHEMA)),
        ("json", SCHEMA_TEXT, Grammar.json_schema(SCHEMA)),
        ("json_schema", {"name": "a", "schema": SCHEMA}, Grammar.json_schema(SCHEMA)),
    ],
)
async def test_a_grammar_holds_the_text_to_a_form(kind, value, expected):
    llm = ScriptedLLM()
    parameters = {"grammar": {"type": kind, "value": value}}
    await asked(llm, "/generate", inputs="x", parameters=parameters)
    assert llm.last.params.grammar == expected


async def test_sagemaker_may_ask_for_a_chat_or_a_completion():
    messages = [{"role": "user", "content": "Hi"}]
    answer = await asked(ScriptedLLM(), "/invocations", model="tgi", messages=messages)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello!"
    answer = await asked(ScriptedLLM(), "/invocations", model="tgi", prompt="Hi")
    assert answer.json()["choices"][0]["text"] == "Hello!"


async def test_vertex_asks_for_several_at_once():
    llm = ScriptedLLM(lambda request: Script(f"<{bytes(request.prompt_token_ids).decode()}>"))
    instances = [
        {"inputs": "a"},
        {"inputs": "b", "parameters": {"max_new_tokens": 2, "do_sample": False}},
        {"messages": [{"role": "user", "content": "c"}], "max_tokens": 10, "temperature": 0.5},
    ]
    answer = await asked(llm, "/vertex", instances=instances)
    assert answer.json() == {"predictions": ["<a>", "<b", "<<|user|>c"]}
    assert [each.params.temperature for each in llm.submissions] == [1.0, 0.0, 0.5]


async def test_vertex_finds_the_server_where_its_environment_says():
    predict = "/v1/endpoints/12/deployedModels/34:predict"
    settings = {"vertex_predict_route": predict, "vertex_health_route": "/v1/endpoints/12"}
    async with client_of(ScriptedLLM(), **settings) as client:
        answer = await client.post(predict, json={"instances": [{"inputs": "a"}]})
        assert answer.json() == {"predictions": ["Hello!"]}
        assert (await client.get("/v1/endpoints/12")).json()["status"] == "ready"
        assert (await client.post("/vertex", json={"instances": []})).status_code == 422
    settings = {"vertex_predict_route": "/generate"}  # both are there, told apart by the body
    async with client_of(ScriptedLLM(), **settings) as client:
        answer = await client.post("/generate", json={"instances": [{"inputs": "a"}]})
        assert answer.json() == {"predictions": ["Hello!"]}
        answer = await client.post("/generate", json={"inputs": "a"})
        assert answer.json() == {"generated_text": "Hello!"}


def test_vertex_s_environment_is_heeded_by_the_command(monkeypatch):
    given = []
    monkeypatch.setattr("penstock.cli.serve.run", lambda *settings: given.append(settings[2]))
    environment = {
        "AIP_HTTP_PORT": "8085",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/12:predict",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/12",
    }
    result = CliRunner().invoke(app, ["serve"], env=environment)
    assert result.exit_code == 0, result.output
    (server,) = given
    assert server.port == 8085
    assert server.vertex_predict_route == "/v1/endpoints/12:predict"
    assert server.vertex_health_route == "/v1/endpoints/12"


@pytest.mark.parametrize("route", ["predict", "/a{b}", "/a b"])
def test_what_is_no_path_is_refused(route):
    with pytest.raises(SettingsError, match="no path"):
        ServerSettings(vertex_predict_route=route)


async def test_the_root_tells_of_health_where_there_is_no_page():
    async with client_of(ScriptedLLM(), dialects=("tgi",), api_keys=("k",)) as client:
        assert (await client.get("/")).json()["status"] == "ready"
    async with client_of(ScriptedLLM(), dialects=("tgi", "page")) as client:
        assert (await client.get("/")).headers["content-type"].startswith("text/html")


async def test_tokens_are_told_with_their_places_and_the_body_tells_the_dialect():
    answer = await asked(ScriptedLLM(), "/tokenize", inputs="aé")
    assert answer.json() == [
        {"id": 97, "text": "a", "start": 0, "stop": 1},
        {"id": 195, "text": "é", "start": 1, "stop": 2},
        {"id": 169, "text": "é", "start": 1, "stop": 2},
    ]


async def test_a_conversation_s_tokens_are_told_with_the_template_s_text():
    llm = ScriptedLLM(special_tokens=("<|user|>", "<|assistant|>"))
    messages = [{"role": "user", "content": "Hi"}]
    answer = (await asked(llm, "/chat_tokenize", model="tgi", messages=messages)).json()
    text = answer["templated_text"]
    assert text == "<|user|>Hi<|assistant|>"
    tokens = answer["tokenize_response"]
    assert [each["text"] for each in tokens] == ["<|user|>", "H", "i", "<|assistant|>"]
    assert all(text[each["start"] : each["stop"]] == each["text"] for each in tokens)


async def test_the_info_tells_the_model_and_the_limits():
    async with client_of(ScriptedLLM(max_model_len=512), max_best_of=3) as client:
        info = (await client.get("/info")).json()
    assert info["model_id"] == "scripted"
    assert info["max_input_tokens"] == 511
    assert info["max_total_tokens"] == 512
    assert info["max_best_of"] == 3
    assert (info["max_stop_sequences"], info["max_client_batch_size"]) == (4, 4)


async def test_the_ping_needs_no_key_and_says_whether_requests_are_welcome():
    llm = ScriptedLLM()
    async with client_of(llm, api_keys=("secret",)) as client:
        assert (await client.get("/ping")).status_code == 200
        llm.is_ready = False
        assert (await client.get("/ping")).status_code == 503
        refused = await client.post("/generate", json={"inputs": "x"})
    assert refused.status_code == 401
    assert refused.json()["error_type"] == "invalid_api_key"


@pytest.mark.parametrize("name", ["tgi", "dummy"])
async def test_any_model_may_be_called_as_tgi_s_clients_do_where_that_dialect_is_on(name):
    body = {"model": name, "prompt": "x"}
    for dialects, status in ((("openai", "tgi"), 200), (("openai",), 404)):
        async with client_of(ScriptedLLM(), dialects=dialects) as client:
            assert (await client.post("/v1/completions", json=body)).status_code == status


@pytest.mark.parametrize(
    "response_format, expected",
    [
        ({"type": "json", "value": SCHEMA}, Grammar.json_schema(SCHEMA)),
        ({"type": "json_object", "value": SCHEMA}, Grammar.json_schema(SCHEMA)),
        ({"type": "regex", "value": "[0-9]"}, Grammar.regex("[0-9]")),
    ],
)
async def test_chats_know_tgi_s_response_formats(response_format, expected):
    llm = ScriptedLLM()
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "tgi", "messages": messages, "response_format": response_format}
    await asked(llm, "/v1/chat/completions", **body)
    assert llm.last.params.grammar == msgspec.structs.replace(expected, param="response_format")
