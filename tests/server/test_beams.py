"""Beam search, against transformers and through the routes."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.app import create_app
from penstock.server.beams import BeamSearch
from penstock.server.settings import ServerSettings
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of, listening
from tests.tiny_models import TINY_FAMILIES

END = 2
PROMPT = [5, 17, 42, 9]


@pytest.fixture(scope="module")
def model():
    model = TINY_FAMILIES["llama"]()
    torch.manual_seed(0)
    with torch.no_grad():  # an end must be likely enough to be found
        model.lm_head.weight[END] += 0.15
    return model


def likeliest(model, beam, count):
    with torch.no_grad():
        logits = model(torch.tensor([PROMPT + beam.token_ids])).logits[0, -1]
    values, ids = torch.log_softmax(logits.float(), -1).topk(count)
    return list(zip(ids.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_the_beams_are_those_that_transformers_finds(model, width, length_penalty, early_stopping):
    search = BeamSearch(
        width=width,
        max_tokens=12,
        end_token_ids=frozenset({END}),
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )
    while not search.is_done:
        search.step([likeliest(model, beam, search.num_candidates) for beam in search.running])
    expected = model.generate(
        torch.tensor([PROMPT]),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=12,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_token_id=END,
        pad_token_id=0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = [beam.token_ids for beam in search.finished]
    theirs = [row[len(PROMPT) :].tolist() for row in expected.sequences]
    padded = [ids + [0] * (len(theirs[0]) - len(ids)) for ids in found]
    assert padded == theirs
    scores = [search.score(beam) for beam in search.finished]
    assert scores == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


def chain(weights):
    """A model of three tokens whose next token depends on the last, and where 0 ends a text."""

    def next_tokens(beam):
        row = weights[beam.token_ids[-1] if beam.token_ids else 0]
        total = sum(row)
        ranked = sorted(range(3), key=lambda token: -row[token])
        return [(token, math.log(row[token] / total)) for token in ranked]

    return next_tokens


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=3, max_size=3),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_wide_enough_a_search_finds_the_likeliest_text_of_all(weights, max_tokens):
    next_tokens = chain(weights)
    search = BeamSearch(
        width=3**max_tokens,
        max_tokens=max_tokens,
        end_token_ids=frozenset({0}),
        length_penalty=0.0,
    )
    while not search.is_done:
        search.step([next_tokens(beam) for beam in search.running])

    def best(last, left):
        row = weights[last]
        return max(
            math.log(row[token] / sum(row)) + (best(token, left - 1) if token and left > 1 else 0)
            for token in range(3)
        )

    assert search.finished[0].logprob == pytest.approx(best(0, max_tokens))


NEXT = {ord("a"): {ord("b"): 0.6, ord("c"): 0.4}, ord("b"): {256: 0.3, ord("b"): 0.7}}
AFTER_OTHERS = {256: 0.9, ord("d"): 0.1}


def markov(**options):
    """An engine whose next token depends on the last; 256 ends a text."""

    def script(request):
        row = NEXT.get(request.prompt_token_ids[-1], AFTER_OTHERS)
        ranked = sorted(row.items(), key=lambda item: -item[1])
        return Script("?", top=tuple((token, math.log(share)) for token, share in ranked))

    return ScriptedLLM(script, **options)


async def ask(path, status=200, llm=None, **body):
    async with client_of(llm or markov()) as client:
        response = await client.post(path, json={"use_beam_search": True, **body})
    assert response.status_code == status, response.text
    return response.json()


async def test_the_best_beams_are_the_choices_best_first():
    llm = markov()
    options = {"prompt": "a", "n": 2, "best_of": 3, "max_tokens": 3, "logprobs": 1}
    answer = await ask("/v1/completions", llm=llm, **options, length_penalty=0)
    first, second = answer["choices"]
    assert (first["text"], first["finish_reason"]) == ("c", "stop")
    assert first["logprobs"]["token_logprobs"] == pytest.approx([math.log(0.4), math.log(0.9)])
    assert len(first["logprobs"]["top_logprobs"][0]) == 2
    assert second["text"] == "bbb"
    assert (second["index"], second["finish_reason"]) == (1, "length")
    assert answer["usage"]["completion_tokens"] == 5
    assert llm.in_flight == set() and llm.cancelled == []


async def test_a_length_penalty_favours_long_texts():
    options = {"prompt": "a", "n": 1, "best_of": 3, "max_tokens": 8}
    short = await ask("/v1/completions", **options, length_penalty=-2)
    long = await ask("/v1/completions", **options, length_penalty=5, early_stopping="never")
    assert len(short["choices"][0]["text"]) < len(long["choices"][0]["text"])


async def test_past_the_end_of_text_if_told_so():
    answer = await ask("/v1/completions", prompt="c", n=1, max_tokens=2, ignore_eos=True)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


async def test_chats_and_several_prompts_are_searched_too():
    body = {"messages": [{"role": "user", "content": "a"}], "n": 2, "max_tokens": 2}
    answer = await ask("/v1/chat/completions", **body)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["", "d"]
    answer = await ask("/v1/completions", prompt=["a", "b"], n=2, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "body, param",
    [
        ({"stream": True}, "stream"),
        ({"stop": "x"}, "stop"),
        ({"temperature": 0.7}, "temperature"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"n": 20}, "n"),
        ({"echo": True}, "echo"),
        ({"use_beam_search": False, "length_penalty": 2}, "use_beam_search"),
        ({"use_beam_search": False, "early_stopping": True}, "use_beam_search"),
    ],
)
async def test_what_a_search_cannot_heed_is_refused(body, param):
    error = (await ask("/v1/completions", status=400, prompt="a", **body))["error"]
    assert error["param"] == param


async def test_the_model_s_own_defaults_are_no_obstacle():
    llm = markov(sampling_defaults={"temperature": 0.6, "top_k": 20, "top_p": 0.9})
    assert (await ask("/v1/completions", llm=llm, prompt="a", max_tokens=2))["choices"]


async def test_the_server_bounds_the_width_and_counts_what_is_computed():
    llm = markov()
    app = create_app(llm, ServerSettings(max_n=3))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        body = {"prompt": "aaa", "use_beam_search": True, "n": 2, "max_tokens": 2}
        refused = await client.post("/v1/completions", json={**body, "n": 4})
        assert refused.json()["error"]["param"] == "n"
        await client.post("/v1/completions", json=body)
        metrics = (await client.get("/metrics")).text
    assert 'penstock_completions_finished_total{finish_reason="length"} 1.0' in metrics
    assert 'penstock_completions_finished_total{finish_reason="stop"} 1.0' in metrics


def test_an_operator_can_end_a_search():
    llm = ScriptedLLM(Script("Hello", hangs_after=0))
    body = {"prompt": "a", "use_beam_search": True, "n": 2}
    with listening(llm) as url, ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{url}/v1/completions", json=body)
        while not llm.in_flight:
            time.sleep(0.01)
        (request,) = httpx.get(f"{url}/admin/requests").json()["requests"]
        httpx.delete(f"{url}/admin/requests/{request['request_id']}")
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cancelled")
