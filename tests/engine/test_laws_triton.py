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
from tests.engine import triton_laws
from tests.engine.test_planning_ahead import ahead
from tests.engine.tiny_engine import continuation, make_engine, run, tokens
from tests.engine.triton_laws import OTHER, PROMPT, SMALL, triton_everywhere
from tests.kernels.interpreter import INTERPRETED

pytest.importorskip("triton")
pytestmark = INTERPRETED

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=4, ignore_eos=True, seed=7)

model_dir = triton_laws.model_dir


@pytest.fixture(scope="module", autouse=True)
def triton_ops() -> Iterator[None]:
    with triton_everywhere():
        yield


def engine_of(model_dir: Path, **settings: object) -> Engine:
    return ahead(make_engine(model_dir, **{**SMALL, **settings}))


@pytest.fixture(scope="module")
def alone(model_dir: Path) -> dict[float, list[int]]:
    """What the prompt is continued with by an engine on the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "choose_ops", lambda device, num_threads, **wishes: (REFERENCE, []))
        engine = make_engine(model_dir, **SMALL)
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
