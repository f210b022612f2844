"""The laws that hold for every family: nothing but the request decides what comes of it.

Compared are tokens, in float32, where two ways of computing the same sums differ too little to
matter.
"""

import random
from pathlib import Path

import pytest

from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine, run, tokens
from tests.tiny_models import TINY_FAMILIES, make_tiny_checkpoint

PROMPT = [random.Random(1).randrange(3, 100) for _ in range(45)]
OTHERS = [
    [random.Random(length).randrange(3, 100) for _ in range(length)] for length in (1, 17, 60)
]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=20, ignore_eos=True, seed=7)


@pytest.fixture(scope="module", params=list(TINY_FAMILIES))
def model_dir(request, tmp_path_factory) -> Path:
    return make_tiny_checkpoint(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=[GREEDY, DRAWN], ids=["greedy", "drawn"])
def params(request) -> SamplingParams:
    return request.param


@pytest.fixture(scope="module")
def alone(model_dir) -> "dict[int, list[int]]":
    """What the prompt is continued with by an engine that has nothing else to do."""
    return {
        params.temperature: continuation(make_engine(model_dir), PROMPT, params)
        for params in (GREEDY, DRAWN)
    }


def test_a_prompt_in_chunks_equals_the_whole_prompt(model_dir, params, alone):
    for budget in (2, 9, 45):
        engine = make_engine(model_dir, token_budget=budget, max_num_seqs=1)
        assert continuation(engine, PROMPT, params) == alone[params.temperature]


def test_batched_equals_alone(model_dir, params, alone):
    engine = make_engine(model_dir, token_budget=30)
    requests = {f"other-{i}": (other, DRAWN) for i, other in enumerate(OTHERS)}
    outputs = run(engine, {**requests, "mine": (PROMPT, params)})
    assert tokens(outputs["mine"][0]) == alone[params.temperature]


def test_a_cached_prefix_equals_a_cold_one(model_dir, params, alone):
    engine = make_engine(model_dir)
    continuation(engine, PROMPT[:40], GREEDY)
    assert continuation(engine, PROMPT, params) == alone[params.temperature]
    assert engine.stats().prefix_hits == 32


def test_a_preempted_sequence_equals_an_undisturbed_one(model_dir, params, alone):
    engine = make_engine(
        model_dir, num_blocks=8, token_budget=64, promise_tokens=2, prefix_caching=False
    )
    outputs = run(engine, {"mine": (PROMPT, params), "other": (OTHERS[2][:58], GREEDY)})
    assert engine.stats().num_preemptions > 0
    assert tokens(outputs["mine"][0]) == alone[params.temperature]


def test_same_seed_same_text_and_other_seed_other_text(model_dir):
    engine = make_engine(model_dir)
    texts = [
        continuation(engine, PROMPT, SamplingParams(seed=seed, max_tokens=20, ignore_eos=True))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_several_completions_equal_as_many_requests_with_that_index(model_dir):
    """The prompt is computed once and shared; each completion is drawn with its own numbers."""
    several = SamplingParams(n=3, seed=5, max_tokens=12, ignore_eos=True)
    cold = make_engine(model_dir, prefix_caching=False)
    shared = run(cold, {"r": (PROMPT, several)})["r"]
    together = run(
        make_engine(model_dir, token_budget=10, max_num_seqs=2), {"r": (PROMPT, several)}
    )
    assert {i: tokens(outputs) for i, outputs in shared.items()} == {
        i: tokens(outputs) for i, outputs in together["r"].items()
    }
    assert len({tuple(tokens(outputs)) for outputs in shared.values()}) == 3
