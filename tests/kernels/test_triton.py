"""Kernels in Triton compute what the formulas and the reference say, in Triton's interpreter."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.kv_cache.contract import KV_DTYPES
from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.quantization import dequantize, quantize_groups
from tests.kernels import formulas
from tests.kernels.attention_cases import MIXED, attend, attend_formula, case
from tests.kernels.interpreter import INTERPRETED, mend_interpreter
from tests.kernels.paged_cache import BLOCK_SIZE, empty_cache, filled_cache
from tests.kernels.sampling_cases import KINDS, rows
from tests.kernels.table import TABLE
from tests.kernels.test_conformance import assert_near, copied, seeded
from tests.kernels.test_sampling import random_shaping
from tests.kernels.triton_cases import EVERY_CASE, filling_at_once, shortened

pytest.importorskip("triton")
pytestmark = INTERPRETED

SCHEMES = ["float32", "bfloat16", "int8", "fp8", "int4"]


@pytest.fixture(scope="module")
def ops() -> Ops:
    from penstock.kernels.triton.backend import kernels

    return kernels()


@pytest.fixture(scope="module")
def reading(ops: Ops) -> Ops:
    """For tests of what attention reads."""
    return filling_at_once(ops)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    mend_interpreter(monkeypatch)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize(("op", "name"), EVERY_CASE, ids=lambda value: value)
def test_a_kernel_computes_what_its_formula_says(
    ops: Ops, reading: Ops, op: str, name: str
) -> None:
    entry = TABLE[op]
    values = shortened(op, entry.cases[name](seeded()))
    expected = entry.formula(*copied(values))
    actual = entry.call(reading if op == "paged_attention" else ops, *values)
    assert_near(actual, expected, entry.tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("bfloat16", 2e-2), ("float16", 2e-3), ("int8", 3e-2), ("fp8", 1.5e-1)],
)
def test_attention_over_rounded_keys_and_values_is_near(
    reading: Ops, dtype: str, tolerance: float
) -> None:
    for build in (
        case(*MIXED, biased=True, window=4),
        case((7, 100), size=80),
        case(*MIXED, soft_cap=2.0, sinks=True),
    ):
        values = build(seeded())
        actual = attend(reading, *values, dtype=dtype)
        assert_near(actual, attend_formula(*values), tolerance)
        assert_near(actual, attend(REFERENCE, *values, dtype=dtype), 1e-5)


@pytest.mark.parametrize("dtype", KV_DTYPES)
def test_elements_are_rounded_as_the_reference_rounds_them(ops: Ops, dtype: str) -> None:
    keys, values = torch.randn(2, 3, BLOCK_SIZE, 2, 20, generator=seeded()) * 100
    keys[0, 0] = 0
    values[1, 2, 1] = 1e-42
    values[1, 3, 1] = torch.arange(20) - 127.0
    ours, theirs = (filled_cache(each, keys, values, dtype=dtype) for each in (ops, REFERENCE))
    kept = torch.cat((theirs.keys, theirs.values), dim=2).transpose(1, 2)
    torch.testing.assert_close(ours.heads.float(), kept.float(), atol=1e-40, rtol=0)
    if ours.scales is not None:
        scales = torch.cat((theirs.key_scales, theirs.value_scales), dim=2).transpose(1, 2)
        assert torch.equal(ours.scales, scales)
    at_once = filled_cache(filling_at_once(ops), keys, values, dtype=dtype)
    torch.testing.assert_close(at_once.heads.float(), kept.float(), atol=1e-40, rtol=0)
    assert ours.scales is None or torch.equal(at_once.scales, ours.scales)


def test_what_is_not_a_number_stays_so(ops: Ops) -> None:
    for dtype in KV_DTYPES:
        heads = torch.full((1, BLOCK_SIZE, 1, 8), float("nan"))
        cache = filled_cache(ops, heads, heads, dtype=dtype)
        assert (cache.heads if cache.scales is None else cache.scales).isnan().all()


@pytest.mark.parametrize("slot", [-1, 3 * BLOCK_SIZE, 2**40])
def test_a_token_without_a_slot_in_the_cache_leaves_nothing_there(ops: Ops, slot: int) -> None:
    cache = empty_cache(ops, 3, 1, 8)
    slots = torch.tensor([slot, 5])
    query = ops.rope_write_kv(torch.ones(2, 3, 8), None, None, cache, slots)
    assert query.shape == (2, 1, 8)
    assert cache.heads.count_nonzero() == 16


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_heads_are_normalised_and_turned_as_by_the_reference(ops: Ops, kind: Any) -> None:
    for size, turned in ((64, 64), (20, 10)):
        heads, (weight, bias) = normal(5, 8, size), normal(2, 6, size)
        norm = Norm(kind, weight, bias if kind == "layer" else None, 1e-5)
        angles = normal(5, turned // 2)
        rotation, slots = (torch.cos(angles), torch.sin(angles)), torch.tensor([3, 40, 1, 0, 17])
        queries = [
            each.rope_write_kv(heads.clone(), norm, rotation, empty_cache(each, 3, 2, size), slots)
            for each in (ops, REFERENCE)
        ]
        torch.testing.assert_close(*queries, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 70},
        {"biased": True, "window": 33},
        {"soft_cap": 1.5, "sinks": True},
        {"window": 70, "sinks": True},
    ],
    ids=str,
)
def test_contexts_cut_into_ranges_give_the_same(reading: Ops, options: dict[str, Any]) -> None:
    """Of some sequences a range has no key at all: before a window, or beyond a short context."""
    slices = (1, 60), (1, 3), (2, 62) if "biased" in options else (2, 150), (1, 1)
    query, keys, values, layout, shape, *sinks = case(*slices, **options)(seeded())
    if shape.key_bias is not None:
        shape = replace(shape, key_bias=normal(4, 64))
    cache = filled_cache(reading, keys, values)
    plan = reading.plan_attention(layout, shape, BLOCK_SIZE)
    assert plan.num_ranges == 1  # one processor, as far as the interpreter knows
    for least_range in (64, 128):
        cut = replace(plan, least_range=least_range, num_ranges=3)
        actual = reading.paged_attention(query, cache, cut, *sinks)
        assert_near(actual, attend_formula(query, keys, values, layout, shape, *sinks), 1e-5)


def test_queries_whose_tokens_lie_apart_are_read_where_they_are(reading: Ops) -> None:
    query, *rest = case(*MIXED, heads=(4, 2))(seeded())
    wide = torch.cat((query, normal(len(query), 3, query.shape[2])), dim=1)
    assert torch.equal(attend(reading, wide[:, :4], *rest), attend(reading, query, *rest))


def test_half_precision_is_near(reading: Ops) -> None:
    for dtype, tolerance in (("bfloat16", 3e-2), ("float16", 4e-3)):
        query, *rest = case(*MIXED, size=64, heads=(6, 2))(seeded())
        half = query.to(getattr(torch, dtype))
        actual = attend(reading, half, *rest, dtype=dtype)
        assert actual.dtype == half.dtype
        assert_near(actual.float(), attend_formula(query, *rest), tolerance)


def test_what_others_left_in_the_cache_is_never_read(reading: Ops) -> None:
    query, keys, values, layout, shape = case(*MIXED)(seeded())
    expected = attend(reading, query, keys, values, layout, shape)
    owned = torch.zeros(keys.shape[:2], dtype=torch.bool)
    for row, length in zip(layout.block_table.tolist(), layout.context_lens_host, strict=True):
        for position in range(length):
            owned[row[position // BLOCK_SIZE], position % BLOCK_SIZE] = True
    keys[~owned] = values[~owned] = float("nan")
    assert torch.equal(attend(reading, query, keys, values, layout, shape), expected)


def test_blocks_behind_a_window_may_be_gone(reading: Ops) -> None:
    query, keys, values, layout, shape = case((10, 110), window=20)(seeded())
    expected = attend(reading, query, keys, values, layout, shape)
    gone = (101 - 20) // BLOCK_SIZE
    layout.block_table[0, :gone] = -1
    assert torch.equal(attend(reading, query, keys, values, layout, shape), expected)


def stood_for(weight: Tensor, scheme: str) -> Tensor:
    """The numbers that a packed weight stands for."""
    if scheme == "int4":
        return dequantize(quantize_groups(weight))
    packed = REFERENCE.pack_linear(weight, None, scheme)
    return dequantize(packed.weight) if scheme in ("int8", "fp8") else packed.weight.float()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("gated", [False, True])
def test_linears_of_every_scheme_compute_what_the_reference_does(
    ops: Ops, scheme: str, gated: bool
) -> None:
    weight, bias = normal(66, 70), normal(66)
    outputs = 33 if gated else 66
    norm = Norm("layer", normal(70) + 2, normal(70), 1e-5)
    for part, surrounded in ((None, gated), (bias, True)):
        packed = ops.pack_linear(weight, part, scheme, gated=gated)
        # int4 meets activations that are not rounded: what a matrix of floats computes
        kept = stood_for(weight, "int4") if scheme == "int4" else weight
        plain = REFERENCE.pack_linear(
            kept, part, "float32" if scheme == "int4" else scheme, gated=gated
        )
        for num_rows in (1, 17, 67):
            x, residual = normal(num_rows, 70), normal(num_rows, outputs)
            around = {"norm": norm, "activation": "silu", "residual": residual}
            around = around if surrounded else {}
            actual = ops.linear(x, packed, **around)
            expected = REFERENCE.linear(x, plain, **around)
            # A norm's last bit may turn one rounded number into its neighbour.
            loose = scheme in ("int8", "fp8") and surrounded
            torch.testing.assert_close(actual, expected, atol=0.2 if loose else 2e-4, rtol=1e-4)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_groups_may_have_any_even_size(ops: Ops, group_size: int) -> None:
    weight = quantize_groups(normal(40, 300), group_size)
    packed = ops.pack_linear(weight, None, "int4")
    x = normal(3, 300)
    expected = formulas.linear(x, dequantize(weight))
    torch.testing.assert_close(ops.linear(x, packed).double(), expected, atol=2e-4, rtol=1e-5)


def test_half_precision_goes_through_every_linear(ops: Ops) -> None:
    weight, x = normal(64, 96), normal(5, 96)
    for scheme in SCHEMES:
        packed = ops.pack_linear(weight, normal(64), scheme)
        full = ops.linear(x, packed, activation="gelu")
        half = ops.linear(x.bfloat16(), packed, activation="gelu")
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), full, atol=0.3, rtol=0.05)


def test_the_largest_integers_do_not_saturate(ops: Ops) -> None:
    weight = torch.full((16, 640), 1.0)
    packed = ops.pack_linear(weight, None, "int8")
    x = torch.full((17, 640), 127.0)
    assert torch.equal(ops.linear(x, packed), x @ weight.T)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_experts_of_every_scheme_compute_what_the_reference_does(ops: Ops, scheme: str) -> None:
    gate_up, down = normal(5, 80, 70) / 8, normal(5, 70, 40) / 8
    x, logits = normal(18, 70), normal(18, 5)
    logits[:, -1] = -50  # nobody's choice
    packed = ops.pack_experts(list(gate_up), list(down), scheme)
    kept = [[stood_for(weight, scheme) for weight in each] for each in (gate_up, down)]
    plain = REFERENCE.pack_experts(*kept, "float32")
    for top_k in (1, 4):
        actual = ops.experts(x, logits, packed, top_k, "silu")
        expected = REFERENCE.experts(x, logits, plain, top_k, "silu")
        tolerance = 0.1 if scheme in ("int8", "fp8") else 1e-4
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    assert ops.experts(x[:0], logits[:0], packed, 2, "silu").shape == (0, 70)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_weights_are_restored_from_their_parts_and_facts(ops: Ops, scheme: str) -> None:
    x = normal(3, 70)
    linear = ops.pack_linear(normal(50, 70), normal(50), scheme)
    restored = ops.restore_linear(linear.facts(), linear.parts())
    assert torch.equal(ops.linear(x, restored), ops.linear(x, linear))
    experts = ops.pack_experts([normal(80, 70)] * 3, [normal(70, 40)] * 3, scheme)
    again = ops.restore_experts(experts.facts(), experts.parts())
    actual = ops.experts(x, normal(3, 3), again, 2, "silu")
    assert torch.equal(actual, ops.experts(x, normal(3, 3), experts, 2, "silu"))
    for name in linear.parts():
        broken = linear.parts() | {name: linear.parts()[name][:-1]}
        with pytest.raises(ValueError, match=name):
            ops.restore_linear(linear.facts(), broken)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_draws_what_the_reference_draws(ops: Ops, kind: str) -> None:
    generator = torch.Generator().manual_seed(len(kind))
    logits = rows(12, 1500, kind)(generator)
    options = random_shaping(12, generator)
    uniforms = torch.rand(12, dtype=torch.float64, generator=generator)
    drawn = [each.draw(logits, options, uniforms) for each in (ops, REFERENCE)]
    assert (drawn[0] == drawn[1]).all()


def test_a_row_as_long_as_several_blocks_is_read_to_its_end(ops: Ops) -> None:
    logits = rows(2, 10_001)(seeded())
    logits[0, 10_000] = 40
    assert ops.argmax(logits)[0] == 10_000
    uniforms = torch.tensor([0.5, 0.99999], dtype=torch.float64)
    options = random_shaping(2, torch.Generator().manual_seed(1))
    options = replace(options, temperature=torch.ones(2), top_k=torch.tensor([0.0, 5000.0]))
    drawn = [each.draw(logits, options, uniforms) for each in (ops, REFERENCE)]
    assert torch.equal(*drawn)
    ours, theirs = (each.top_logprobs(logits, drawn[0], 3) for each in (ops, REFERENCE))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_neither_companions_nor_their_options_change_what_is_drawn(ops: Ops) -> None:
    generator = torch.Generator().manual_seed(5)
    logits, options = rows(4, 300)(generator), random_shaping(4, generator)
    uniforms = torch.rand(4, dtype=torch.float64, generator=generator)
    together = ops.draw(logits, options, uniforms)
    for row in range(4):
        one = slice(row, row + 1)
        columns = {name: getattr(options, name)[one] for name in options.__slots__}
        alone = ops.draw(logits[one], type(options)(**columns), uniforms[one])
        assert torch.equal(alone, together[one])


def test_what_does_not_fit_is_refused(ops: Ops) -> None:
    packed = ops.pack_linear(normal(20, 64), None, "int8")
    with pytest.raises(ValueError, match="rows of 64 are due"):
        ops.linear(normal(3, 63), packed)
    with pytest.raises(ValueError, match="residual"):
        ops.linear(normal(3, 64), packed, residual=normal(3, 21))
    with pytest.raises(ValueError, match="norm"):
        ops.linear(normal(3, 64), packed, norm=Norm("rms", normal(63), None, 1e-5))
    with pytest.raises(ValueError, match="V at least 1"):
        ops.argmax(torch.zeros(1, 0))
    with pytest.raises(ValueError, match="temperature"):
        options = random_shaping(2, seeded())
        ops.draw(torch.zeros(1, 5), options, torch.zeros(1).double())
    query, keys, values, layout, shape = case((1, 3))(seeded())
    with pytest.raises(ValueError, match="do not fit a step"):
        attend(ops, query[:, :2], keys, values, layout, shape)
    with pytest.raises(ValueError, match="for each of 4 heads"):
        attend(ops, query, keys, values, layout, shape, torch.zeros(3))
    with pytest.raises(ValueError, match="No cache of"):
        empty_cache(ops, 1, 1, 8, dtype="int3")


def test_a_row_that_the_table_lacks_is_zeros(ops: Ops) -> None:
    found = ops.embedding(torch.tensor([-1, 5, 2]), torch.ones(5, 3), torch.float32)
    assert found.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]


def test_every_operation_has_a_kernel(ops: Ops) -> None:
    from penstock.kernels.triton.backend import _gaps

    assert not _gaps(ops)
