"""DeepSpeed-MII's routes and options, against a scripted engine."""

import json

import pytest

from penstock.server.deployments import launching
from penstock.server.mii.arguments import settings_from_mii
from penstock.server.mii.parameters import GenerateParams
from penstock.server.mii.response import Response
from penstock.vocabulary.errors import InvalidRequest, NoSuchServer, SettingsError
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, events

PATH = "/mii/mine"


@pytest.fixture
async def mii(llm):
    async with client_of(llm, dialects=("mii",), served_model_name="mine") as client:
        yield client


async def test_every_prompt_gets_a_response_in_its_place(mii):
    answer = await mii.post(PATH, json={"prompts": ["Hi", "Good day"]})
    assert answer.status_code == 200
    assert answer.json() == [
        {
            "generated_text": "Hello!",
            "prompt_length": length,
            "generated_length": 6,
            "finish_reason": "stop",
        }
        for length in (2, 8)
    ]


async def test_the_defaults_are_those_of_mii(llm, mii):
    llm.max_model_len = 5000
    await mii.post(PATH, json={"prompts": "Hi"})
    params = llm.last.params
    assert (params.max_tokens, params.min_tokens, params.ignore_eos) == (1022, 0, False)
    assert (params.temperature, params.top_p, params.top_k) == (1.0, 0.9, 0)
    assert params.stop is None


async def test_every_option_reaches_the_engine(llm, mii):
    asked = {
        "max_length": 50,
        "max_new_tokens": 20,
        "min_new_tokens": 3,
        "ignore_eos": True,
        "top_p": 0.5,
        "top_k": 7,
        "temperature": 1.5,
        "stop": ["\n\n", "User:"],
    }
    await mii.post(PATH, json={"prompts": ["Hi"], **asked})
    params = llm.last.params
    assert (params.max_tokens, params.min_tokens, params.ignore_eos) == (20, 3, True)
    assert (params.temperature, params.top_p, params.top_k) == (1.5, 0.5, 7)
    assert params.stop == ["\n\n", "User:"]
    await mii.post(PATH, json={"prompts": ["Hi"], "do_sample": False, "temperature": 0.3})
    assert llm.last.params.is_greedy


async def test_each_prompt_ends_at_max_length_tokens_of_its_own(llm, mii):
    await mii.post(PATH, json={"prompts": ["Hi", "Good day"], "max_length": 10})
    assert [each.params.max_tokens for each in llm.submissions] == [8, 2]
    answer = await mii.post(PATH, json={"prompts": ["Hi", "Good day"], "max_length": 10})
    assert [each["finish_reason"] for each in answer.json()] == ["stop", "length"]


async def test_the_full_text_begins_with_the_prompt(mii):
    asked = {"prompts": ["Hi "], "return_full_text": True}
    assert (await mii.post(PATH, json=asked)).json()[0]["generated_text"] == "Hi Hello!"
    streamed = await mii.post(PATH, json={**asked, "stream": True})
    pieces = [each["generated_text"] for [each] in events(streamed.text)]
    assert "".join(pieces) == "Hi Hello!" and pieces[0] == "Hi H"


async def test_a_stream_brings_pieces_and_says_in_the_last_why_it_ended(mii):
    streamed = await mii.post(PATH, json={"prompts": "Hi", "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    pieces = [each for [each] in events(streamed.text)]
    assert "".join(each["generated_text"] for each in pieces) == "Hello!"
    assert [each["generated_length"] for each in pieces] == [1, 2, 3, 4, 5, 6]
    assert [each["finish_reason"] for each in pieces] == ["none"] * 5 + ["stop"]


async def test_a_stream_that_fails_ends_with_the_error():
    llm = ScriptedLLM(Script(fails_after=2))
    async with client_of(llm, dialects=("mii",), served_model_name="mine") as client:
        streamed = await client.post(PATH, json={"prompts": "Hi", "stream": True})
    assert "died" in events(streamed.text)[-1]["error"]["message"]


async def test_the_other_server_answers_with_texts(llm, mii):
    asked = {"prompt": ["Hi", "Yo"], "max_tokens": 3}
    answer = await mii.post("/generate", json=asked)
    assert answer.json() == {"text": ["Hel", "Hel"]}
    assert llm.last.params.temperature == 0.7
    streamed = await mii.post("/generate", json={"prompt": "Hi", "max_tokens": 3, "stream": True})
    assert events(streamed.text) == [{"text": [piece]} for piece in "Hel"] + ["[DONE]"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "prompts"),
        ({"prompts": []}, "prompts"),
        ({"prompts": ["Hi", ""]}, "prompts"),
        ({"prompts": ["Hi"] * 300}, "prompts"),
        ({"prompts": "Hi", "max_length": 2}, "max_length"),
        ({"prompts": "x" * 1000}, "max_length"),
        ({"prompts": "Hi", "max_length": 10, "min_new_tokens": 9}, "min_new_tokens"),
        ({"prompts": "Hi", "temperature": 0}, "temperature"),
        ({"prompts": "Hi", "temperature": 9}, "temperature"),
        ({"prompts": "Hi", "top_p": 1.5}, "top_p"),
        ({"prompts": ["Hi", "Yo"], "stream": True}, "stream"),
        ({"prompts": "Hi", "max_tokens": 3}, "max_tokens"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(llm, mii, asked, field):
    refused = await mii.post(PATH, json=asked)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == field
    assert not llm.in_flight


async def test_another_deployment_is_not_found(mii):
    refused = await mii.post("/mii/other", json={"prompts": "Hi"})
    assert refused.status_code == 404 and "`mine`" in refused.json()["error"]["message"]


async def test_a_deployment_may_be_called_after_a_model_with_a_slash(llm):
    async with client_of(llm, dialects=("mii",), served_model_name="org/model") as client:
        for path in ("/mii/org/model", "/mii/org%2Fmodel"):
            assert (await client.post(path, json={"prompts": "Hi"})).status_code == 200


async def test_healthz_tells_whether_requests_are_welcome_without_a_key(llm):
    async with client_of(llm, dialects=("mii",), api_keys=("k",)) as client:
        assert (await client.get("/healthz")).status_code == 200
        llm.is_ready = False
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.post("/mii/scripted", json={"prompts": "Hi"})).status_code == 401


async def test_terminate_drains_the_server_for_an_admin_s_key_only(llm):
    admins = {"api_keys": ("user",), "admin_keys": ("boss",)}
    async with client_of(llm, dialects=("mii",), **admins) as client:
        for key, status in (("wrong", 401), ("user", 403), ("boss", 200)):
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.get("/terminate", headers=headers)
            assert answer.status_code == status
        assert answer.json() == {"num_open": 0}
        assert (await client.get("/healthz")).json()["reason"] == "the server is shutting down"


@pytest.mark.parametrize("keys", [{}, {"api_keys": ("user",)}])
async def test_without_an_admin_s_key_nothing_can_be_terminated(llm, keys):
    """Least of all by a web page, which can have its reader's browser ask for any address."""
    async with client_of(llm, dialects=("mii",), **keys) as client:
        client.headers.update({"authorization": "Bearer user", "host": "127.0.0.1"})
        assert (await client.get("/terminate")).status_code == 404


async def test_the_dialect_is_off_unless_asked_for(client):
    assert (await client.post("/mii/scripted", json={"prompts": "Hi"})).status_code == 404


def test_a_response_is_its_text():
    response = Response(
        generated_text="Hi", prompt_length=1, generated_length=1, finish_reason="stop"
    )
    assert str(response) == repr(response) == f"{response}" == "Hi"


def test_max_length_is_cut_to_the_model():
    assert GenerateParams(max_length=10**6).sampling(100, 2048).max_tokens == 1948
    with pytest.raises(InvalidRequest, match="max_length is 2048"):
        GenerateParams(max_length=10**6).sampling(2048, 2048)


def test_arguments_that_mean_something_here_get_our_names():
    given = {"max_length": 512, "restful_api_port": 8080, "tensor_parallel": 1, "replica_num": 2}
    given |= {"device_map": [[0], [1]], "enable_restful_api": True, "token_budget": 64}
    assert settings_from_mii(given) == {
        "max_model_len": 512,
        "port": 8080,
        "replicas": 2,
        "device_map": [[0], [1]],
        "token_budget": 64,
    }


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ({"tensor_parallel": 2}, "One process"),
        ({"replica_configs": [{"hostname": "here"}]}, "device_map"),
        ({"quantization_mode": "wf6af16"}, "weights='int8'"),
        ({"deployment_type": "aml"}, "this machine"),
        ({"model_config": {"max_length": 5}}, "as arguments"),
        ({"port_number": 50050}, "no gRPC"),
        ({"max_length": 5, "max_model_len": 5}, "same setting"),
    ],
)
def test_arguments_that_we_cannot_honour_are_refused(argument, remedy):
    with pytest.raises(SettingsError, match=remedy):
        settings_from_mii(argument)


def test_a_deployment_s_dialects_keep_their_order(monkeypatch, tmp_path):
    """Where two have the same route, the first one given answers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    launched = []
    monkeypatch.setattr(launching, "_launch", lambda launch, log: launched.append(launch))
    asked = ("tgi", "azureml", "page", "openai", "anthropic")
    with pytest.raises(NoSuchServer):  # as none was started
        launching.serve(deployment_name="a", dialects=asked)
    assert json.loads(launched[0])["server"]["dialects"] == [*asked, "mii"]
