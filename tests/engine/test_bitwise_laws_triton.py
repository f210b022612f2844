"""With --deterministic the engine's laws hold bit for bit on the kernels in Triton, here in the
interpreter: tokens, and the log probabilities reported of them, are the same numbers. Planning
ahead, as on a GPU.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penstock.engine.engine import Engine
from penstock.vocabulary.messages import Output, TokenLogprobs
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine import triton_laws
from tests.engine.test_planning_ahead import Recordings, ahead
from tests.engine.tiny_engine import make_engine, run
from tests.engine.triton_laws import OTHER, PROMPT, SMALL, resolve_to, triton_everywhere
from tests.kernels.interpreter import INTERPRETED, multiply_elements_alike
from tests.tiny_models import make_tiny_checkpoint

pytest.importorskip("triton")
pytestmark = INTERPRETED

REPORTED = SamplingParams(
    temperature=1, top_p=0.95, max_tokens=4, ignore_eos=True, seed=7, logprobs=3
)
PLAIN = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


model_dir = triton_laws.model_dir


@pytest.fixture(scope="module", autouse=True)
def triton_ops() -> Iterator[None]:
    with triton_everywhere() as patch:
        multiply_elements_alike(patch)
        yield


def engine_of(model_dir: Path, **settings: object) -> Engine:
    return ahead(make_engine(model_dir, deterministic=True, **{**SMALL, **settings}))


def reported(outputs: list[Output]) -> list[TokenLogprobs]:
    return [entry for output in outputs for entry in output.logprobs]


def answer(engine: Engine) -> list[TokenLogprobs]:
    return reported(run(engine, {"mine": (PROMPT, REPORTED)})["mine"][0])


@pytest.fixture(scope="module")
def alone(model_dir: Path) -> list[TokenLogprobs]:
    """What an engine with nothing else to do says of the prompt's continuation."""
    found = answer(engine_of(model_dir))
    assert len({entry.logprob for entry in found}) == REPORTED.max_tokens
    return found


def test_a_prompt_in_chunks_and_in_company_equals_the_whole_prompt_alone(
    model_dir: Path, alone: list[TokenLogprobs]
) -> None:
    engine = engine_of(model_dir, token_budget=9, max_num_seqs=3)
    requests = {"one": (OTHER[:5], PLAIN), "two": (OTHER, PLAIN), "mine": (PROMPT, REPORTED)}
    assert reported(run(engine, requests)["mine"][0]) == alone


def test_a_cached_prefix_equals_a_cold_one(model_dir: Path, alone: list[TokenLogprobs]) -> None:
    engine = engine_of(model_dir)
    run(engine, {"first": (PROMPT[:17], PLAIN)})
    assert answer(engine) == alone
    assert engine.stats().prefix_hits == 16


def test_a_preempted_sequence_equals_an_undisturbed_one(
    model_dir: Path, alone: list[TokenLogprobs]
) -> None:
    engine = engine_of(model_dir, num_blocks=3, promise_tokens=1, prefix_caching=False)
    found = run(engine, {"other": (OTHER, PLAIN), "mine": (PROMPT, REPORTED)})
    assert engine.stats().num_preemptions > 0
    assert reported(found["mine"][0]) == alone


def test_a_recorded_step_equals_one_that_is_not(
    model_dir: Path, alone: list[TokenLogprobs]
) -> None:
    """Recorded steps have the longest context there may be, and empty rows."""
    recordings = Recordings()
    engine = ahead(engine_of(model_dir), recordings.record)
    requests = {"one": (OTHER[:5], PLAIN), "two": (OTHER, PLAIN), "mine": (PROMPT, REPORTED)}
    assert reported(run(engine, requests)["mine"][0]) == alone
    assert recordings.count


def test_int8_keeps_the_laws_too(model_dir: Path) -> None:
    kept = {"weights": "int8", "kv_dtype": "int8"}
    whole = answer(engine_of(model_dir, **kept))
    engine = engine_of(model_dir, token_budget=7, max_num_seqs=2, **kept)
    found = run(engine, {"other": (OTHER, PLAIN), "mine": (PROMPT, REPORTED)})
    assert reported(found["mine"][0]) == whole


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_the_laws_too(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations, weights, keys and values."""
    model_dir = make_tiny_checkpoint("qwen3", tmp_path)
    resolve_to(monkeypatch, dtype=dtype, weights=dtype, kv_dtype=dtype)
    whole = answer(engine_of(model_dir))
    engine = engine_of(model_dir, token_budget=7, max_num_seqs=2)
    found = run(engine, {"other": (OTHER, PLAIN), "mine": (PROMPT, REPORTED)})
    assert engine.runner.decoder.dtype == getattr(torch, dtype)
    assert reported(found["mine"][0]) == whole
