"""Every backend computes what the formulas say."""

from dataclasses import fields
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
    for build in (case(*MIXED), case(*MIXED, biased=True, window=4), case((7, 300), size=80)):
        values = build(seeded())
        actual = attend(BACKENDS[backend], *values, dtype=dtype)
        assert_near(actual, attend_formula(*values), tolerance)


def test_the_reference_takes_blocks_of_any_size() -> None:
    for block_size in (1, 4, 5):
        values = case(*MIXED, block_size=block_size)(seeded())
        assert_near(attend(REFERENCE, *values), attend_formula(*values), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_others_left_in_the_cache_is_never_read(backend: str) -> None:
    query, keys, values, layout, shape = ATTENTION["every kind of slice"](seeded())
    expected = attend(BACKENDS[backend], query, keys, values, layout, shape)
    owned = torch.zeros(keys.shape[:2], dtype=torch.bool)
    for row, length in zip(layout.block_table.tolist(), layout.context_lens_host, strict=True):
        for position in range(length):
            owned[row[position // keys.shape[1]], position % keys.shape[1]] = True
    keys[~owned] = float("nan")
    values[~owned] = float("nan")
    actual = attend(BACKENDS[backend], query, keys, values, layout, shape)
    assert torch.equal(actual, expected)
