"""The official `anthropic` client against `penstock serve`, and against models that call tools."""

from typing import Literal

import anthropic
import pytest
from pydantic import BaseModel

from tests.endtoend.test_clients_that_call_tools import CALLS, answer_of, engine_of
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening
from tests.text.chat_models import LLAMA3

MODEL = "penstock-default"
HELLO = [{"role": "user", "content": "Say hello."}]
GREEDY = {"extra_body": {"temperature": 0}}
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


class Item(BaseModel):
    colour: Literal["red", "green"]
    is_big: bool


def client_at(url, **options):
    options = {"api_key": "any", "max_retries": 0, **options}
    return anthropic.Anthropic(base_url=url, **options)


@pytest.fixture
def client(served):
    with client_at(served.url) as client:
        yield client


def test_a_message_is_answered(client):
    answer = client.messages.create(model=MODEL, max_tokens=12, messages=HELLO)
    assert answer.role == "assistant"
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert 0 < answer.usage.output_tokens <= 12
    assert answer._request_id


def test_a_streamed_message_is_the_whole_one_in_pieces(client):
    options = {"model": MODEL, "max_tokens": 20, "messages": HELLO, **GREEDY}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(block.text for block in final.content) == text
    assert text == "".join(block.text for block in whole.content)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_an_answer_that_is_begun_is_continued(client):
    begun = [*HELLO, {"role": "assistant", "content": "Hello"}]
    options = {"model": MODEL, "max_tokens": 8, "messages": begun, **GREEDY}
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
    assert text and text == client.messages.create(**options).content[0].text
    counted = client.messages.count_tokens(model=MODEL, messages=begun).input_tokens
    assert counted <= client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens + 5


def test_tokens_are_counted(client):
    answer = client.messages.create(model=MODEL, max_tokens=1, messages=HELLO)
    usage = answer.usage
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO)
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_the_client_parses_what_it_asked_for(client):
    answer = client.messages.parse(model=MODEL, max_tokens=300, messages=HELLO, output_format=Item)
    assert isinstance(answer.parsed_output, Item)


def test_errors_are_the_client_s_own(client):
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(
            model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "x " * 20_000}]
        )
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="other", max_tokens=1, messages=HELLO)


@pytest.mark.parametrize("model", CALLS, ids=lambda model: model.name)
def test_tools_are_called_and_their_results_read(model):
    asked = [{"role": "user", "content": "How is the weather in Köln and Bonn?"}]
    options = {"model": "scripted", "max_tokens": 500, "tools": [WEATHER]}
    with listening(engine_of(model, CALLS[model])) as url, client_at(url) as client:
        with client.messages.stream(messages=asked, **options) as stream:
            answer = stream.get_final_message()
        calls = [block for block in answer.content if block.type == "tool_use"]
        assert [call.input for call in calls] == [{"city": "Köln"}, {"city": "Bonn"}]
        assert answer.stop_reason == "tool_use"
        if model is LLAMA3:
            return  # its template takes back one call at a time
        results = [
            {"type": "tool_result", "tool_use_id": c.id, "content": f"rain in {c.input['city']}"}
            for c in calls
        ]
        said = [*asked, answer.to_param(), {"role": "user", "content": results}]
        last = client.messages.create(messages=said, **options)
    assert last.stop_reason == "end_turn"
    assert last.content[-1].text == answer_of(model).rpartition("</think>")[2]


def test_the_key_is_checked_wherever_the_client_puts_it():
    with listening(ScriptedLLM(), api_keys=("right",)) as url:
        with client_at(url) as client, pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model="scripted", max_tokens=1, messages=HELLO)
        for key in ({"api_key": "right"}, {"api_key": None, "auth_token": "right"}):
            with client_at(url, **key) as client:
                client.messages.create(model="scripted", max_tokens=1, messages=HELLO)


def test_an_engine_that_dies_in_a_stream_is_an_error_and_no_short_success():
    with (
        listening(ScriptedLLM(Script("Hello", fails_after=2))) as url,
        client_at(url) as client,
        pytest.raises(anthropic.APIStatusError, match="The engine process died"),
        client.messages.stream(model="scripted", max_tokens=9, messages=HELLO) as stream,
    ):
        list(stream)
