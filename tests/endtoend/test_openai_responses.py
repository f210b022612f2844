"""The official `openai` client's responses and embeddings, against `penstock serve`."""

import openai
import pytest
from pydantic import BaseModel, Field

from tests.endtoend.test_clients_that_call_tools import CALLS, TOOL, answer_of, engine_of
from tests.server.serving import listening
from tests.text.chat_models import LLAMA3

MODEL = "penstock-default"
WEATHER = {"type": "function", "strict": False, **TOOL["function"]}


class Item(BaseModel, extra="forbid"):
    name: str = Field(max_length=8)
    count: int = Field(ge=0, le=9)


def client_at(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


@pytest.fixture
def client(served):
    with client_at(served.url) as client:
        yield client


def test_a_streamed_response_is_the_whole_one_in_pieces(client):
    options = {
        "model": MODEL,
        "input": "Say hello.",
        "max_output_tokens": 20,
        "temperature": 0,
    }
    whole = client.responses.create(**options)
    assert whole.output_text
    assert whole.usage.output_tokens <= 20
    with client.responses.stream(**options) as stream:
        found = list(stream)
    text = "".join(event.delta for event in found if event.type == "response.output_text.delta")
    assert text == whole.output_text
    assert found[-1].type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert found[-1].response.usage == whole.usage.model_copy(
        update={"input_tokens_details": found[-1].response.usage.input_tokens_details}
    )


def test_the_client_parses_what_it_asked_for(client):
    answer = client.responses.parse(
        model=MODEL, input="A record.", text_format=Item, max_output_tokens=400
    )
    assert isinstance(answer.output_parsed, Item)


@pytest.mark.parametrize("model", CALLS, ids=lambda model: model.name)
def test_functions_are_called_and_their_results_read(model):
    asked = [{"role": "user", "content": "How is the weather in Köln and Bonn?"}]
    options = {"model": "scripted", "tools": [WEATHER]}
    with listening(engine_of(model, CALLS[model])) as url, client_at(url) as client:
        with client.responses.stream(input=asked, **options) as stream:
            answer = stream.get_final_response()
        calls = [item for item in answer.output if item.type == "function_call"]
        assert [call.arguments for call in calls] == ['{"city": "Köln"}', '{"city": "Bonn"}']
        if model is LLAMA3:
            return  # its template takes back one call at a time
        said = [item.model_dump(exclude_none=True) for item in answer.output]
        results = [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"rain in {city}"}
            for call, city in zip(calls, ("Köln", "Bonn"), strict=True)
        ]
        last = client.responses.create(input=[*asked, *said, *results], **options)
    assert last.output_text == answer_of(model).rpartition("</think>")[2]


def test_what_is_kept_elsewhere_is_refused_with_a_reason(client):
    with pytest.raises(openai.BadRequestError, match="nothing is stored here"):
        client.responses.create(model=MODEL, input="And?", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_like_texts_have_like_vectors(client, options):
    texts = ["def add(a, b):", "def sub(a, b):", "2024-05-17, 12:30"]
    answer = client.embeddings.create(model=MODEL, input=texts, **options)
    near, nearer, far = (item.embedding for item in answer.data)
    size = client.models.list().data[0].embedding_size
    assert len(near) == size
    assert dot(near, near) == pytest.approx(1, abs=1e-5)
    assert dot(near, nearer) > dot(near, far)
    (alone,) = client.embeddings.create(model=MODEL, input=texts[2], **options).data
    assert alone.embedding == far


def dot(first, second):
    return sum(x * y for x, y in zip(first, second, strict=True))


def test_the_beams_that_score_best_are_answered(client):
    options = {"model": MODEL, "prompt": "def fibonacci(n):", "max_tokens": 6}
    beams = {"use_beam_search": True, "length_penalty": 0}
    found = client.completions.create(**options, n=3, logprobs=0, extra_body=beams)
    scores = [sum(choice.logprobs.token_logprobs) for choice in found.choices]
    assert scores == sorted(scores, reverse=True)
    plain = {"repetition_penalty": 1.0}  # searches heed no default of the model
    greedy = client.completions.create(**options, temperature=0, logprobs=0, extra_body=plain)
    assert scores[0] >= sum(greedy.choices[0].logprobs.token_logprobs) - 1e-4
    (one,) = client.completions.create(**options, n=1, extra_body=beams).choices
    assert one.text == greedy.choices[0].text


def test_prompts_are_tokenized_as_they_are_read(client, served):
    answer = client.completions.create(model=MODEL, prompt="def f():", max_tokens=1)
    told = served.client.post("/tokenize", json={"prompt": "def f():"}).json()
    assert told["count"] == answer.usage.prompt_tokens
    back = served.client.post("/detokenize", json={"tokens": told["tokens"]}).json()
    assert back == {"prompt": "def f():"}
