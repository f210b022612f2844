"""Attention on a GPU over the paged cache (https://arxiv.org/abs/2309.06180), for slices of every
length in one launch.

A tile is a few neighbouring tokens of a slice times the query heads that share a key-value head
(https://arxiv.org/abs/2511.11581); a program walks over the keys that its tile sees. Where a step
has few tiles and long contexts, keys are cut into ranges, a program for each, and a second pass
joins what the ranges found.

Where results are to be deterministic, tiles have one size, ranges one length, and what ranges found
is put together in their order. Whether one program walks over all of a tile's ranges, or one over
each, still follows from the step, and changes no bit.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.kv_cache.triton import LayerKV
from penstock.kernels.paged_attention.contract import AttentionShape, check_sinks
from penstock.kernels.paged_attention.triton_join import join, mean, with_sinks
from penstock.kernels.paged_attention.triton_walk import LOG2_E, walk
from penstock.kernels.step_layout import StepLayout
from penstock.kernels.triton.search import group_of, most_tiles, tile_of
from penstock.kernels.triton.target import (
    check_rows,
    dot_type,
    num_multiprocessors,
    power_of_two,
)

_KEYS_TILES = ((256, 64, 3), (512, 32, 2), (1024, 16, 1))
"""Keys of a tile, and how many tiles are on their way at once, for heads of so many bytes, the last
for any more: so that a program finds its shared memory on GPUs that have but 99 KiB of it.
"""
FEW_ROWS, MANY_ROWS = 16, 64
"""Rows of a tile, tokens times heads, in a step of single tokens, and in one with longer slices."""
FIXED_ROWS = 32
"""The same of all steps, where results are deterministic: a compromise."""
SHORTEST_RANGE = 256
"""Keys for which a program of their own is worth starting. A multiple of a tile's."""
MOST_KEPT = 2**24
"""Numbers that ranges of one fixed length may leave to be put together: 64 MiB."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """A step as `paged_attention` takes it: its layout, and how the work is cut up."""

    layout: StepLayout
    shape: AttentionShape
    block_size: int
    rows: int
    """Of a tile: tokens times the heads of a group, with some to spare."""
    num_tiles: int
    """At least as many as there are; programs beyond the last one leave at once."""
    num_ranges: int
    """Into so many each sequence's keys are cut, a program for each; 1 where they are not."""
    least_range: int = SHORTEST_RANGE
    fixed_range: int = 0
    """The length of all ranges, where results are deterministic; else 0."""


def plan_attention(
    layout: StepLayout, shape: AttentionShape, block_size: int, *, deterministic: bool = False
) -> AttentionPlan:
    """How a step is cut into tiles and ranges: host arithmetic, nothing waits for the device. With
    deterministic, a token's bits do not depend on it.
    """
    num_sequences = len(layout.query_lens_host)
    check_rows(layout.block_table, "block_table", num_sequences, None)
    check_rows(layout.cu_seqlens_q, "cu_seqlens_q", num_sequences + 1)
    check_rows(layout.context_lens, "context_lens", num_sequences)
    check_bias(shape)
    group = shape.num_heads // shape.num_kv_heads
    singles = max(layout.query_lens_host, default=0) <= 1
    least = FIXED_ROWS if deterministic else FEW_ROWS if singles else MANY_ROWS
    rows = power_of_two(group, least=least)
    num_tiles = most_tiles(sum(layout.query_lens_host), num_sequences, rows // group)
    longest = max(layout.context_lens_host, default=0)
    idle = 2 * num_multiprocessors(layout.positions.device)
    num_ranges = idle // max(1, num_tiles * shape.num_kv_heads)
    if not deterministic:
        num_ranges = max(1, min(num_ranges, longest // SHORTEST_RANGE))
        return AttentionPlan(layout, shape, block_size, rows, num_tiles, num_ranges)
    num_fixed = max(1, -(-longest // SHORTEST_RANGE))
    kept = sum(layout.query_lens_host) * shape.num_heads * shape.head_dim * num_fixed
    num_ranges = num_fixed if num_ranges > 1 and kept <= MOST_KEPT else 1
    return AttentionPlan(
        layout, shape, block_size, rows, num_tiles, num_ranges, fixed_range=SHORTEST_RANGE
    )


def check_bias(shape: AttentionShape) -> None:
    """Raises ValueError for a bias that is not for these heads."""
    if shape.key_bias is not None and len(shape.key_bias) != shape.num_heads:
        raise ValueError(f"A bias for {len(shape.key_bias)} heads does not fit {shape.num_heads}.")


@triton.jit
def _range_of(
    part, num_ranges, context_len, end, least_range, FIXED: tl.constexpr, TILE: tl.constexpr
):
    """Where the keys of a range begin and end, of those before `end`. It has none where it begins
    behind that.
    """
    if FIXED > 0:
        length = tl.where(num_ranges > 1, FIXED, tl.maximum(end, 1))
    else:
        length = tl.maximum(tl.cdiv(context_len, num_ranges * TILE) * TILE, least_range)
    return part * length, tl.minimum(end, (part + 1) * length)


@triton.jit(do_not_specialize=["num_sequences", "table_stride", "num_ranges"])
def _attend(
    query, query_stride, kept, scales, table, table_stride, starts, context_lens, num_sequences,
    bias, max_positions, sinks, scale, cap, window, num_heads, num_kv_heads, size, block_size,
    out, partial, sums, num_ranges, least_range, GROUP: tl.constexpr, DOT: tl.constexpr,
    TILE: tl.constexpr, FIXED: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    tile, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = group_of(starts, num_sequences, tile, M // GROUP)
    start, query_len, begin = tile_of(starts, sequence, tile, M // GROUP)
    context_len = tl.load(context_lens + sequence)
    before = context_len - query_len
    end = before + tl.minimum(begin + M // GROUP, query_len)
    first, last = _range_of(part, num_ranges, context_len, end, least_range, FIXED, TILE)
    is_needed = begin < query_len
    if FIXED > 0:
        is_needed = is_needed & (first < end)
    if is_needed:
        row = tl.arange(0, M)
        token = begin + row // GROUP
        is_there = (row < M // GROUP * GROUP) & (token < query_len)
        heads = kv_head * GROUP + row % GROUP
        element = tl.arange(0, D)[None, :]
        in_head = is_there[:, None] & (element < size)
        place = (start + token).to(tl.int64)[:, None]
        place_in_query = place * query_stride + heads[:, None] * size + element
        q = tl.load(query + place_in_query, mask=in_head, other=0.0).to(DOT)
        if window is not None:
            first = tl.maximum(first, before + begin - window + 1)
        best, total, found = walk(
            q, before + token, heads, is_there, kept, scales, table + sequence * table_stride,
            kv_head, num_kv_heads, first, last, bias, max_positions, scale * LOG2_E, cap,
            window, block_size, size, FIXED, DOT, TILE, M, D,
        )  # fmt: skip
        _leave(
            found, best, total, sinks, heads, place * num_heads + heads[:, None], in_head,
            is_there, out, partial, sums, part, num_ranges, element, size,
        )  # fmt: skip


@triton.jit
def _leave(
    found, best, total, sinks, heads, place, in_head, is_there, out, partial, sums, part,
    num_ranges, element, size,
):  # fmt: skip
    """Write what a tile's queries found: as their result, or as that of one range."""
    shared = with_sinks(total, best, sinks, heads)
    result = mean(found, shared).to(out.dtype.element_ty)
    tl.store(out + place * size + element, result, mask=in_head & (num_ranges == 1))
    if partial is not None:
        place = place * num_ranges + part
        tl.store(partial + place * size + element, found, mask=in_head & (num_ranges > 1))
        is_range = is_there[:, None] & (num_ranges > 1)
        tl.store(sums + 2 * place, best[:, None], mask=is_range)
        tl.store(sums + 2 * place + 1, total[:, None], mask=is_range)


def paged_attention(
    query: Tensor, cache: LayerKV, plan: AttentionPlan, sinks: Tensor | None = None
) -> Tensor:
    """Attention of query [T, H, D], whose tokens may lie apart: [T, H, D], dense, in its dtype."""
    shape, layout, size = plan.shape, plan.layout, plan.shape.head_dim
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    _check_query(query, cache, plan)
    check_sinks(sinks, shape)
    if not out.numel():
        return out
    partial, sums = _room_for_ranges(out, plan)
    bias, block_table = shape.key_bias, layout.block_table
    kept = cache.heads, cache.scales, block_table, block_table.stride(0)
    slices = layout.cu_seqlens_q, layout.context_lens, len(block_table)
    biases = bias, 0 if bias is None else bias.shape[1]
    sizes = shape.num_heads, shape.num_kv_heads, size, plan.block_size
    results = out, partial, sums, plan.num_ranges, plan.least_range
    width = power_of_two(size, least=16)
    tile, num_stages = _keys_tile(width * max(query.itemsize, cache.heads.itemsize), bias)
    _attend[(plan.num_tiles, shape.num_kv_heads, plan.num_ranges)](
        *(query, query.stride(0), *kept, *slices, *biases, sinks),
        *(shape.scale, shape.soft_cap, shape.window, *sizes, *results),
        GROUP=shape.num_heads // shape.num_kv_heads,
        DOT=dot_type(query.dtype),
        TILE=tile,
        FIXED=plan.fixed_range,
        M=plan.rows,
        D=width,
        num_stages=num_stages,
    )
    if partial is not None and sums is not None and plan.num_ranges > 1:
        join(partial, sums, sinks, layout.positions, out, plan.fixed_range)
    return out


def _keys_tile(num_bytes: int, bias: Tensor | None) -> tuple[int, int]:
    """Keys of a tile, and tiles on their way, for heads of so many bytes. A bias travels too."""
    fitting = (tile[1:] for tile in _KEYS_TILES if num_bytes <= tile[0])
    keys, num_stages = next(fitting, _KEYS_TILES[-1][1:])
    return keys, num_stages if bias is None else min(num_stages, 2)


def _room_for_ranges(out: Tensor, plan: AttentionPlan) -> tuple[Tensor | None, Tensor | None]:
    """Where ranges leave what they found, and the best score and the sum of weights with it. None
    for a single range; for fixed ones no room, so that it is the same program.
    """
    if plan.num_ranges == 1 and not plan.fixed_range:
        return None, None
    tokens, heads, size = out.shape
    count = plan.num_ranges if plan.num_ranges > 1 else 0
    partial = torch.empty(tokens, heads, count, size, device=out.device)
    return partial, torch.empty(tokens, heads, count, 2, device=out.device)


def _check_query(query: Tensor, cache: LayerKV, plan: AttentionPlan) -> None:
    """Raises ValueError for queries that do not fit the plan, or a cache that does not."""
    shape = plan.shape
    expected = (sum(plan.layout.query_lens_host), shape.num_heads, shape.head_dim)
    if query.shape != expected or query.stride()[1:] != (shape.head_dim, 1):
        raise ValueError(
            f"Queries {list(query.shape)} with strides {list(query.stride())} do not fit a step of "
            f"{list(expected)} with dense heads."
        )
    kept = cache.shape
    if (kept.num_kv_heads, kept.head_dim, kept.block_size) != (
        shape.num_kv_heads,
        shape.head_dim,
        plan.block_size,
    ):
        raise ValueError(f"A plan for {shape} in blocks of {plan.block_size} does not fit {kept}.")
