"""Every backend computes what the formulas say."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE, Ops
from tests.kernels.attention_cases import ATTENTION, MIXED, attend, attend_formula, case
from tests.kernels.table import BACKENDS, TABLE

PREPARATIONS = {
    "recorder",
    "packing",
    "pack_linear",
    "pack_experts",
    "restore_linear",
    "restore_experts",
    "kv_dtypes",
    "kv_parts",
    "layer_kv",
    "plan_attention",
}
"""What only makes, or names, what another operation takes."""

EVERY_CASE = [
    pytest.param(op, backend, case, id=f"{op}-{backend}-{case}")
    for op, entry in TABLE.items()
    for backend in BACKENDS
    for case in entry.cases
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def copied(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in values)


def assert_near(actual: Any, expected: Any, tolerance: float) -> None:
    for ours, theirs in zip(
        actual if isinstance(actual, tuple) else (actual,),
        expected if isinstance(expected, tuple) else (expected,),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=tolerance)


def test_every_operation_is_in_the_table() -> None:
    assert {field.name for field in fields(Ops)} - PREPARATIONS == set(TABLE)


@pytest.mark.parametrize(("op", "backend", "name"), EVERY_CASE)
def test_a_kernel_computes_what_its_formula_says(op: str, backend: str, name: str) -> None:
    entry = TABLE[op]
    values = entry.cases[name](seeded())
    expected = entry.formula(*copied(values))
    actual = entry.call(BACKENDS[backend], *values)
    assert_near(actual, expected, entry.tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("bfloat16", 2e-2), ("float16", 2e-3), ("int8", 3e-2)]
)
def test_attention_over_rounded_keys_and_values_is_near(
    backend: str, dtype: str, tolerance: float
) -> None:
    for build in (
        case(*MIXED),
        case(*MIXED, biased=True, window=4),
        case((7, 300), size=80),
        case(*MIXED, soft_cap=2.0, sinks=True),
    ):
        values = build(seeded())
        actual = attend(BACKENDS[backend], *values, dtype=dtype)
        assert_near(actual, attend_formula(*values), tolerance)


def test_the_reference_takes_blocks_of_any_size() -> None:
    for block_size in (1, 4, 5):
        values = case(*MIXED, block_size=block_size)(seeded())
        assert_near(attend(REFERENCE, *values), attend_formula(*values), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cap_and_a_sink_do_what_they_do_on_paper(backend: str) -> None:
    """Two keys score 0 and 2, which a cap of 1 makes tanh 2. The sink's ln 2 counts for 2."""
    query, keys, values, layout, shape = case((1, 2), heads=(1, 1), soft_cap=1.0)(seeded())
    block = layout.block_table[0, 0]
    for each in (query, keys, values):
        each.zero_()
    query[0, 0, 0] = 1
    keys[block, 1, 0, 0] = 2
    values[block, 0], values[block, 1] = 1, 3
    sinks = torch.tensor([math.log(2)])
    found = attend(BACKENDS[backend], query, keys, values, layout, replace(shape, scale=1.0), sinks)
    weight = math.exp(math.tanh(2))
    expected = (1 * 1 + weight * 3) / (1 + weight + 2)
    assert_near(found, torch.full((1, 1, found.shape[-1]), expected), 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "sinks",
    [torch.zeros(3), torch.zeros(1, 4), torch.zeros(4).double(), torch.zeros(8)[::2]],
    ids=["too few", "two axes", "of another type", "not dense"],
)
def test_sinks_that_are_not_one_for_each_head_are_refused(backend: str, sinks: Tensor) -> None:
    values = case((1, 3), heads=(4, 2))(seeded())
    with pytest.raises(ValueError, match="for each of 4 heads"):
        attend(BACKENDS[backend], *values, sinks)


def test_a_cap_that_is_not_above_zero_is_refused() -> None:
    for cap in (0.0, -30.0, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            case((1, 3), soft_cap=cap)(seeded())


@pytest.mark.parametrize("name", ["every kind of slice", "sinks, capped scores and a bias on keys"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_others_left_in_the_cache_is_never_read(backend: str, name: str) -> None:
    query, keys, values, layout, shape, *sinks = ATTENTION[name](seeded())
    expected = attend(BACKENDS[backend], query, keys, values, layout, shape, *sinks)
    owned = torch.zeros(keys.shape[:2], dtype=torch.bool)
    for row, length in zip(layout.block_table.tolist(), layout.context_lens_host, strict=True):
        for position in range(length):
            owned[row[position // keys.shape[1]], position % keys.shape[1]] = True
    keys[~owned] = float("nan")
    values[~owned] = float("nan")
    actual = attend(BACKENDS[backend], query, keys, values, layout, shape, *sinks)
    assert torch.equal(actual, expected)
