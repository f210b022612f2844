"""Every backend computes what the formulas say."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from tests.kernels.attention_cases import ATTENTION, MIXED, attend, attend_formula, case
from tests.kernels.table import BACKENDS, TABLE

PREPARATIONS = {"pack_linear", "pack_experts", "plan_attention"}
"""Operations that only make what another one takes."""

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
        allowed = 2e-2 if ours.dtype in (torch.bfloat16, torch.float16) else tolerance
        torch.testing.assert_close(ours.double(), theirs.double(), atol=allowed, rtol=allowed)


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
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_is_near(backend: str, dtype: torch.dtype) -> None:
    for build in (case(*MIXED, dtype=dtype), case(*MIXED, dtype=dtype, biased=True, window=4)):
        values = build(seeded())
        actual = attend(BACKENDS[backend], *values)
        assert actual.dtype == dtype
        assert_near(actual, attend_formula(*values), 0.0)


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_operations_that_write_in_place_return_what_they_wrote(backend: str) -> None:
    ops = BACKENDS[backend]
    heads, cos, sin = TABLE["rope"].cases["whole heads"](seeded())
    assert ops.rope(heads, cos, sin) is heads
    key, value, keys, values, slots = TABLE["write_kv"].cases["one token"](seeded())
    written = ops.write_kv(key, value, keys, values, slots)
    assert written[0] is keys and written[1] is values
