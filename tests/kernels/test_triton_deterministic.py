"""Deterministic kernels in Triton give each row the bits that it has alone, in the interpreter."""

from typing import Any

import pytest
import torch

from penstock.kernels.backends import choose_ops
from penstock.kernels.ops import Ops
from tests.kernels.attention_cases import attend, attend_formula, case
from tests.kernels.interpreter import INTERPRETED, mend_interpreter, multiply_elements_alike
from tests.kernels.same_bits import check_attention, check_experts, check_linear
from tests.kernels.table import TABLE
from tests.kernels.test_conformance import assert_near, copied, seeded
from tests.kernels.triton_cases import EVERY_CASE, filling_at_once

pytest.importorskip("triton")
pytestmark = INTERPRETED

SCHEMES = ["float32", "bfloat16", "int8", "fp8", "int4"]
CHANGED = [
    (op, name)
    for op, name in EVERY_CASE
    if op in ("linear", "experts", "paged_attention") and "piece" not in name
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ops() -> Ops:
    from penstock.kernels.triton.backend import kernels

    return filling_at_once(kernels(deterministic=True))


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    mend_interpreter(monkeypatch)
    multiply_elements_alike(monkeypatch)


@pytest.mark.parametrize(("op", "name"), CHANGED, ids=lambda value: value)
def test_a_kernel_computes_what_its_formula_says(ops: Ops, op: str, name: str) -> None:
    values = TABLE[op].cases[name](seeded())
    expected = TABLE[op].formula(*copied(values))
    assert_near(TABLE[op].call(ops, *values), expected, TABLE[op].tolerance)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_linear_s_rows_have_bits_of_their_own(ops: Ops, scheme: str) -> None:
    check_linear(ops, scheme, torch.float32, CPU)


def test_and_so_they_have_in_half_precision(ops: Ops) -> None:
    check_linear(ops, "bfloat16", torch.bfloat16, CPU)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_experts_rows_have_bits_of_their_own(ops: Ops, scheme: str) -> None:
    check_experts(ops, scheme, torch.float32, CPU)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(
    "options",
    [
        {"heads": (6, 2), "size": 20},
        {"heads": (3, 3), "window": 70},
        {"heads": (5, 1), "biased": True, "window": 9},
        {"heads": (4, 2), "soft_cap": 2.0, "sinks": True},
    ],
    ids=str,
)
def test_attention_s_slices_have_bits_of_their_own(
    ops: Ops, options: dict[str, Any], dtype: str
) -> None:
    longest = {"size": (11, 140), "biased": (7, 50)}
    first = next((longest[each] for each in options if each in longest), (3, 140))
    values = case(first, (1, 64 if "biased" in options else 66), (2, 2), **options)(seeded())
    check_attention(ops, values, dtype, range_len=64)


def test_ranges_of_one_length_give_what_the_formula_says(ops: Ops) -> None:
    """With ranges as long as they usually are."""
    values = case((2, 270), (1, 3), heads=(2, 1))(seeded())
    assert_near(attend(ops, *values), attend_formula(*values), 1e-5)
    check_attention(ops, values, "float32")


def test_what_a_prompt_in_a_long_context_leaves_behind_stays_small(ops: Ops) -> None:
    """Where many tokens have many ranges, one program walks over all of them."""
    from penstock.kernels.paged_attention import triton

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton, "num_multiprocessors", lambda device: 132)
        _, _, _, layout, shape = case((1, 9000), heads=(4, 2))(seeded())
        assert ops.plan_attention(layout, shape, 16).num_ranges == 36
        patch.setattr(triton, "MOST_KEPT", 36 * 4 * 8 - 1)
        assert ops.plan_attention(layout, shape, 16).num_ranges == 1


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpu_s_operations_are_deterministic_where_that_is_asked_for(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    ops, _ = choose_ops(torch.device("cuda"), 1, deterministic=deterministic)
    _, _, _, layout, shape = case((1, 9))(seeded())
    assert bool(ops.plan_attention(layout, shape, 16).fixed_range) == deterministic
    for op in (ops.linear, ops.experts):
        assert op.keywords == {"deterministic": deterministic}
