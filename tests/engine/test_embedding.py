"""A prompt's vector is the mean of its hidden states, whatever the engine does beside it."""

import random

import pytest
import torch

from penstock.engine.llm import LLM
from penstock.vocabulary.errors import ContextTooLong
from penstock.vocabulary.messages import Cancel, FinishReason, Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import make_engine
from tests.kernels.instruction_sets import ISAS
from tests.tiny_models import TINY_FAMILIES, make_tiny_checkpoint

PROMPTS = [
    [random.Random(length).randrange(3, 100) for _ in range(length)] for length in (45, 1, 17)
]
PARAMS = SamplingParams()


def embedded(engine, prompts=PROMPTS, beside=()):
    """The vectors of these prompts, computed together with other requests."""
    for number, prompt in enumerate(prompts):
        engine.add(
            Request(request_id=str(number), prompt_token_ids=prompt, sampling=PARAMS, embeds=True)
        )
    for request in beside:
        engine.add(request)
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    mine = {output.request_id: output for output in outputs if output.embedding}
    assert all(output.finish_reason is FinishReason.STOP for output in mine.values())
    assert not any(output.token_ids for output in mine.values())
    return [mine[str(number)].embedding for number in range(len(prompts))]


def assert_same(vectors, expected):
    """Bit for bit, where kernels were built that compute so."""
    if ISAS:
        assert vectors == expected
    assert vectors == [pytest.approx(vector, abs=1e-6) for vector in expected]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_tiny_checkpoint("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def alone(llama):
    return [embedded(make_engine(llama), [prompt])[0] for prompt in PROMPTS]


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "opt-norm-after", "phi"])
def test_it_is_the_mean_that_transformers_has(family, tmp_path):
    engine = make_engine(make_tiny_checkpoint(family, tmp_path))
    model = TINY_FAMILIES[family]()
    for prompt, vector in zip(PROMPTS, embedded(engine), strict=True):
        with torch.no_grad():
            states = model.base_model(torch.tensor([prompt])).last_hidden_state[0]
        mean = torch.nn.functional.normalize(states.double().mean(0), dim=0)
        assert torch.allclose(torch.tensor(vector, dtype=torch.double), mean, atol=1e-5)


def test_a_prompt_in_slices_has_the_vector_of_the_whole(llama, alone):
    for budget in (2, 9, 20):
        engine = make_engine(llama, token_budget=budget, max_num_seqs=1)
        assert_same(embedded(engine), alone)


def test_neither_companions_nor_a_cached_prefix_change_a_vector(llama, alone):
    engine = make_engine(llama, token_budget=24)
    drawn = SamplingParams(max_tokens=20, seed=3, ignore_eos=True)
    beside = [
        Request(request_id=f"other-{number}", prompt_token_ids=prompt, sampling=drawn)
        for number, prompt in enumerate(PROMPTS)
    ]
    assert_same(embedded(engine, beside=beside), alone)
    assert_same(embedded(engine), alone)


def test_what_it_has_computed_is_a_cached_prefix_for_others(llama):
    engine = make_engine(llama)
    embedded(engine)
    engine.add(Request(request_id="r", prompt_token_ids=PROMPTS[0], sampling=PARAMS))
    while engine.has_work:
        engine.step()
    assert engine.stats().prefix_hits == 32
    assert engine.stats().num_blocks_used == 0


def test_a_cancelled_prompt_frees_its_blocks(llama):
    engine = make_engine(llama, token_budget=9, max_num_seqs=1)
    engine.add(Request(request_id="r", prompt_token_ids=PROMPTS[0], sampling=PARAMS, embeds=True))
    engine.step()
    engine.cancel(Cancel(request_id="r"))
    assert not engine.has_work
    assert engine.stats().num_blocks_used == 0


def test_python_embeds_texts_that_may_fill_the_context():
    llm = LLM(max_model_len=64, kv_cache_gib=0.05)
    near, nearer, far = llm.embed(["def add(a, b):", "def sub(a, b):", "2024-05-17, 12:30"])
    assert sum(x * x for x in near) == pytest.approx(1)
    assert dot(near, nearer) > dot(near, far)
    [full] = llm.embed({"prompt_token_ids": [5] * 64})
    assert len(full) == len(near)
    with pytest.raises(ContextTooLong):
        llm.embed({"prompt_token_ids": [5] * 65})


def dot(first, second):
    return sum(x * y for x, y in zip(first, second, strict=True))
