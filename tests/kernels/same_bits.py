"""Whether a row's bits are its own, whatever else is computed: of deterministic operations, on any
device. `scripts/gpu-check` asks the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import LayerKV, Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from tests.kernels.paged_cache import BLOCK_SIZE, filled_cache

CUTS = ((0, 1), (7, 8), (3, 19), (58, 68), (1, 68))
"""Of 68 rows, a few more than a tile has."""


def check_rows(compute: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """What is computed of rows does not depend on which others there are."""
    whole = compute(x)
    for first, end in CUTS:
        same = torch.equal(compute(x[first:end]), whole[first:end])
        assert same, f"rows {first} to {end} of {len(x)} are others alone"


def check_linear(ops: Ops, scheme: str, dtype: torch.dtype, device: torch.device) -> None:
    """A linear with nothing around it, and with everything."""
    weight, bias, scale, x = (
        _normal(*shape).to(device) for shape in ((68, 140), (68,), (140,), (68, 140))
    )
    plain = ops.pack_linear(weight, bias, scheme)
    check_rows(lambda rows: ops.linear(rows, plain), x.to(dtype))
    gated = ops.pack_linear(weight, None, scheme, gated=True)
    norm = Norm("rms", scale.to(dtype), None, 1e-5)

    def surrounded(rows: Tensor) -> Tensor:
        residual = rows[:, :34].contiguous()
        return ops.linear(rows, gated, norm=norm, activation="silu", residual=residual)

    check_rows(surrounded, x.to(dtype))


def check_experts(ops: Ops, scheme: str, dtype: torch.dtype, device: torch.device) -> None:
    """A mixture of experts, one of which is everybody's first choice."""
    gate_up, down = (_normal(*shape).to(device) for shape in ((5, 80, 64), (5, 64, 40)))
    packed = ops.pack_experts(list(gate_up / 8), list(down / 8), scheme)
    generator = torch.Generator().manual_seed(0)
    x, router = (
        torch.randint(-3, 4, (count, 64), generator=generator, device="cpu").to(device, dtype)
        for count in (68, 5)
    )
    better = torch.tensor([0, 0.125, 1000, 0.375, 0.5], device=device)

    def mixture(rows: Tensor) -> Tensor:
        # of small whole numbers torch's product is exact, however many rows there are
        return ops.experts(rows, rows.float() @ router.float().T + better, packed, 2, "silu")

    check_rows(mixture, x)


def check_attention(
    ops: Ops, values: tuple[Any, ...], dtype: str, range_len: int | None = None
) -> None:
    """Slices of a step, and parts of them, alone and together, whether one program walks over all
    ranges of keys or each has its own. `range_len` is for ranges shorter than usual.
    """
    query, keys, kept, layout, shape, *sinks = values
    cache = filled_cache(ops, keys, kept, dtype=dtype)
    whole = _attend(ops, query, cache, layout, shape, sinks, range_len, split=False)
    for is_split in (True, False):
        together = _attend(ops, query, cache, layout, shape, sinks, range_len, split=is_split)
        assert torch.equal(together, whole), f"the step, in ranges: {is_split}"
        for rows, part in _parts(layout):
            found = _attend(ops, query[rows], cache, part, shape, sinks, range_len, split=is_split)
            assert torch.equal(found, whole[rows]), f"rows {rows} alone, in ranges: {is_split}"


def _attend(
    ops: Ops,
    query: Tensor,
    cache: LayerKV,
    layout: StepLayout,
    shape: AttentionShape,
    sinks: list[Tensor],
    range_len: int | None,
    *,
    split: bool,
) -> Tensor:
    plan = ops.plan_attention(layout, shape, BLOCK_SIZE)
    range_len = range_len or plan.fixed_range
    num_ranges = -(-max(layout.context_lens_host) // range_len) if split else 1
    plan = replace(plan, fixed_range=range_len, num_ranges=num_ranges)
    return ops.paged_attention(query, cache, plan, *sinks)


def _parts(layout: StepLayout) -> Iterator[tuple[slice, StepLayout]]:
    """Every slice of a step alone, its two halves, and its last token: rows, and their layout."""
    start = 0
    lens = zip(layout.query_lens_host, layout.context_lens_host, strict=True)
    for sequence, (query_len, context_len) in enumerate(lens):
        half = query_len // 2
        for first, end in {
            (0, query_len),
            (0, half),
            (half, query_len),
            (query_len - 1, query_len),
        }:
            if first < end:
                rows = slice(start + first, start + end)
                yield rows, _alone(layout, sequence, rows, context_len - query_len + end)
        start += query_len


def _alone(layout: StepLayout, sequence: int, rows: slice, context_len: int) -> StepLayout:
    """Some tokens of one sequence as a step of their own."""
    count = rows.stop - rows.start
    return StepLayout(
        positions=layout.positions[rows].clone(),
        slot_mapping=layout.slot_mapping[rows].clone(),
        block_table=layout.block_table[sequence : sequence + 1].clone(),
        cu_seqlens_q=torch.tensor([0, count], dtype=torch.int32, device=layout.positions.device),
        context_lens=torch.full_like(layout.context_lens[:1], context_len),
        query_lens_host=[count],
        context_lens_host=[context_len],
    )


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), device="cpu")
