"""What is handed to FlashInfer means what it should: a stand-in that computes from that alone gives
what the formula says.
"""

import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from penstock.kernels.backends import with_flashinfer
from penstock.kernels.ops import Ops
from tests.kernels.attention_cases import MIXED, attend, attend_formula, case
from tests.kernels.flashinfer_stand_in import Module, Wrapper
from tests.kernels.interpreter import INTERPRETED, mend_interpreter
from tests.kernels.paged_cache import BLOCK_SIZE, filled_cache
from tests.kernels.test_conformance import assert_near, seeded
from tests.kernels.triton_cases import filling_at_once

pytest.importorskip("triton")
pytestmark = INTERPRETED


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    mend_interpreter(monkeypatch)
    monkeypatch.setitem(sys.modules, "flashinfer", Module)


@pytest.fixture
def ops() -> Ops:
    from penstock.kernels.triton.backend import kernels

    return with_flashinfer(filling_at_once(kernels()), torch.float32)


@pytest.mark.parametrize(
    "build",
    [
        case((3, 3)),
        case(*MIXED),
        case((1, 16), (16, 16), (3, 48), (32, 32)),
        case((20, 70), (1, 33), heads=(6, 2), size=64),
        case(*MIXED, heads=(3, 3)),
        case(*MIXED, window=1),
        case((10, 50), (2, 2), (1, 40), window=7),
        case((4, 9), window=100),
        case(*MIXED, window=7, soft_cap=0.7),
    ],
    ids=[
        *("one", "mixed", "full blocks", "shared heads", "own heads"),
        *("window of 1", "7", "100", "capped"),
    ],
)
def test_pages_lengths_masks_and_layouts_are_what_attention_needs(ops: Ops, build: Any) -> None:
    values = build(seeded())
    assert_near(attend(ops, *values), attend_formula(*values), 1e-5)


def test_half_precision_passes_through(ops: Ops) -> None:
    query, keys, kept, layout, shape = case(*MIXED, size=64)(seeded())
    half = with_flashinfer(ops, torch.bfloat16)
    found = attend(half, query.bfloat16(), keys, kept, layout, shape, dtype="bfloat16")
    assert found.dtype == torch.bfloat16
    assert_near(found, attend_formula(query, keys, kept, layout, shape), 3e-2)


def test_steps_of_single_tokens_stay_with_the_kernels_that_graphs_record(ops: Ops) -> None:
    from penstock.kernels.paged_attention.triton import AttentionPlan

    values = case((1, 9), (1, 30))(seeded())
    assert isinstance(ops.plan_attention(values[3], values[4], BLOCK_SIZE), AttentionPlan)
    assert_near(attend(ops, *values), attend_formula(*values), 1e-5)


def test_a_step_s_plan_outlives_the_next_step_s_and_those_of_other_shapes(ops: Ops) -> None:
    """The device reads what was planned when it comes to it."""
    query, keys, kept, layout, shape = case((3, 20), (2, 9))(seeded())
    _, _, _, later, _ = case((7, 9))(seeded())
    cache = filled_cache(ops, keys, kept)
    planned = [ops.plan_attention(layout, each, 16) for each in (shape, replace(shape, window=5))]
    for each in (shape, replace(shape, window=5)):
        ops.plan_attention(later, each, 16)
    for plan, each in zip(planned, (shape, replace(shape, window=5)), strict=True):
        expected = attend_formula(query, keys, kept, layout, each)
        assert_near(ops.paged_attention(query, cache, plan), expected, 1e-5)


def test_wrappers_are_made_once_and_take_turns(ops: Ops) -> None:
    values = case((3, 20))(seeded())
    wrappers = [ops.plan_attention(values[3], values[4], 16).wrapper for _ in range(9)]
    assert all(isinstance(wrapper, Wrapper) for wrapper in wrappers)
    assert all(one is not other for one, other in pairwise(wrappers))
    assert {wrapper.num_plans for wrapper in wrappers} == {3}


def test_what_it_cannot_compute_is_refused(ops: Ops) -> None:
    query, keys, kept, layout, shape = case(*MIXED)(seeded())
    biased = replace(shape, key_bias=torch.zeros(4, 64))
    with pytest.raises(ValueError, match="no bias to keys"):
        ops.plan_attention(layout, biased, 16)
    with pytest.raises(ValueError, match="knows no sinks"):
        attend(ops, query, keys, kept, layout, shape, torch.zeros(4))
    for dtype in ("int8", "bfloat16"):
        with pytest.raises(ValueError, match=f"over torch.{dtype} do not fit"):
            attend(ops, query, keys, kept, layout, shape, dtype=dtype)
    with pytest.raises(ValueError, match="do not fit a step of 13"):
        attend(ops, query[:3], keys, kept, layout, shape)
