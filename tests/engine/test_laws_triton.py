"""The engine's laws on the kernels in Triton, in the interpreter: for a family with shared keys and
rotations, and for one with experts. Planning ahead, as on a GPU.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine import loading
from penstock.engine.engine import Engine
from penstock.kernels.ops import REFERENCE
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine, run, tokens
from tests.kernels.interpreter import mend_conversions
from tests.tiny_models import make_tiny_checkpoint

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.filterwarnings("ignore:.* encountered:RuntimeWarning"),
]

PROMPT = [3 + 7 * number % 97 for number in range(18)]
OTHER = [5 + 11 * number % 89 for number in range(15)]
GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=4, ignore_eos=True, seed=7)


@pytest.fixture(scope="module", params=["qwen3", "mixtral"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def triton_ops() -> Iterator[None]:
    """Every engine made here computes with them."""
    from penstock.kernels.triton.backend import kernels

    with pytest.MonkeyPatch.context() as patch:
        mend_conversions(patch)
        patch.setattr(loading, "choose_ops", lambda device, num_threads, **wishes: (kernels(), []))
        yield


def engine_of(model_dir: Path, **settings: object) -> Engine:
    engine = make_engine(model_dir, kv_cache_gib=0.001, **{"num_blocks": 16, **settings})
    engine.plans_ahead = True
    return engine


@pytest.fixture(scope="module")
def alone(model_dir: Path) -> dict[float, list[int]]:
    """What the prompt is continued with by an engine on the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "choose_ops", lambda device, num_threads, **wishes: (REFERENCE, []))
        engine = make_engine(model_dir, kv_cache_gib=0.001, num_blocks=16)
    return {params.temperature: continuation(engine, PROMPT, params) for params in (GREEDY, DRAWN)}


@pytest.mark.parametrize("params", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_prompt_in_chunks_and_in_company_is_continued_as_by_the_reference(
    model_dir: Path, alone: dict[float, list[int]], params: SamplingParams
) -> None:
    engine = engine_of(model_dir, token_budget=9, max_num_seqs=2)
    short = SamplingParams(max_tokens=1, seed=1)
    outputs = run(engine, {"other": (OTHER[:5], short), "mine": (PROMPT, params)})
    assert tokens(outputs["mine"][0]) == alone[params.temperature]


def test_a_cached_prefix_equals_a_cold_one(model_dir: Path, alone: dict[float, list[int]]) -> None:
    engine = engine_of(model_dir)
    continuation(engine, PROMPT[:17], SamplingParams(temperature=0, max_tokens=1))
    assert continuation(engine, PROMPT, GREEDY) == alone[0]
    assert engine.stats().prefix_hits == 16


def test_a_preempted_sequence_equals_an_undisturbed_one(
    model_dir: Path, alone: dict[float, list[int]]
) -> None:
    engine = engine_of(model_dir, num_blocks=3, promise_tokens=1, prefix_caching=False)
    outputs = run(engine, {"other": (OTHER, GREEDY), "mine": (PROMPT, GREEDY)})
    assert engine.stats().num_preemptions > 0
    assert tokens(outputs["mine"][0]) == alone[0]


def test_several_completions_share_a_prompt(model_dir: Path) -> None:
    several = SamplingParams(n=2, seed=5, max_tokens=3, ignore_eos=True)
    found = [
        {index: tokens(each) for index, each in run(engine, {"r": (OTHER, several)})["r"].items()}
        for engine in (engine_of(model_dir), engine_of(model_dir, token_budget=8, max_num_seqs=1))
    ]
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
