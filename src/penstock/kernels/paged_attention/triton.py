"""Attention on a GPU over the paged cache (https://arxiv.org/abs/2309.06180), for slices of every
length in one launch.

A tile is a few neighbouring tokens of a slice times the query heads that share a key-value head
(https://arxiv.org/abs/2511.11581); a program walks over the keys that its tile sees, softmax on the
way (https://arxiv.org/abs/2205.14135). Where a step has few tiles and long contexts, keys are cut
into ranges, a program for each, and a second pass joins what the ranges found
(https://arxiv.org/abs/2311.01282).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.kv_cache.triton import LayerKV
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from penstock.kernels.triton.search import group_of, most_tiles, tile_of
from penstock.kernels.triton.target import (
    check_rows,
    dot_type,
    num_multiprocessors,
    power_of_two,
)

KEYS_TILE = 64
FEW_ROWS, MANY_ROWS = 16, 64
"""Rows of a tile, tokens times heads, in a step of single tokens, and in one with longer slices."""
SHORTEST_RANGE = 256
"""Keys for which a program of their own is worth starting."""
_LOG2_E = tl.constexpr(1.4426950408889634)


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
    """Into so many each sequence's keys are cut."""
    least_range: int = SHORTEST_RANGE


def plan_attention(layout: StepLayout, shape: AttentionShape, block_size: int) -> AttentionPlan:
    """How a step is cut into tiles and ranges: host arithmetic, nothing waits for the device."""
    num_sequences = len(layout.query_lens_host)
    check_rows(layout.block_table, "block_table", num_sequences, None)
    check_rows(layout.cu_seqlens_q, "cu_seqlens_q", num_sequences + 1)
    check_rows(layout.context_lens, "context_lens", num_sequences)
    check_bias(shape)
    group = shape.num_heads // shape.num_kv_heads
    singles = max(layout.query_lens_host, default=0) <= 1
    rows = power_of_two(group, least=FEW_ROWS if singles else MANY_ROWS)
    num_tiles = most_tiles(sum(layout.query_lens_host), num_sequences, rows // group)
    longest = max(layout.context_lens_host, default=0)
    idle = 2 * num_multiprocessors(layout.positions.device)
    num_ranges = idle // max(1, num_tiles * shape.num_kv_heads)
    num_ranges = max(1, min(num_ranges, longest // SHORTEST_RANGE))
    return AttentionPlan(layout, shape, block_size, rows, num_tiles, num_ranges)


def check_bias(shape: AttentionShape) -> None:
    """Raises ValueError for a bias that is not for these heads."""
    if shape.key_bias is not None and len(shape.key_bias) != shape.num_heads:
        raise ValueError(f"A bias for {len(shape.key_bias)} heads does not fit {shape.num_heads}.")


@triton.jit
def _walk(
    query, position, heads, rows, kept, scales, table, kv_head, num_kv_heads, first, end, bias,
    max_positions, scale, window, block_size, size,
    DOT: tl.constexpr, TILE: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Softmax over the keys from first to end: the best score and the sum of weights [M] of each
    query, and the weighted sum of values [M, D].
    """
    element = tl.arange(0, D)[None, :]
    best = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    out = tl.zeros([M, D], tl.float32)
    for start in range(first // TILE * TILE, end, TILE):
        keys_at = start + tl.arange(0, TILE)
        is_there = (keys_at >= first) & (keys_at < end)
        block = tl.load(table + keys_at // block_size, mask=is_there, other=0)
        row = (block * 2 * num_kv_heads + kv_head) * block_size + keys_at % block_size
        value_row = row + num_kv_heads * block_size
        in_head = is_there[:, None] & (element < size)
        key = tl.load(kept + row[:, None] * size + element, mask=in_head, other=0.0)
        value = tl.load(kept + value_row[:, None] * size + element, mask=in_head, other=0.0)
        scores = tl.dot(query, tl.trans(key.to(DOT)), input_precision="ieee") * scale
        if scales is not None:
            scores *= tl.load(scales + row, mask=is_there, other=0.0)[None, :]
        if bias is not None:
            place = heads[:, None] * max_positions + keys_at[None, :]
            is_known = rows[:, None] & is_there[None, :]
            scores += tl.load(bias + place, mask=is_known, other=0.0) * _LOG2_E
        scores = _seen(scores, position, keys_at, window)
        weight, best, total, out = _weigh(scores, best, total, out)
        if scales is not None:
            weight *= tl.load(scales + value_row, mask=is_there, other=0.0)[None, :]
        out = tl.dot(weight.to(DOT), value.to(DOT), out, input_precision="ieee")
    return best, total, out


@triton.jit
def _seen(scores, position, keys_at, window):
    """Scores [M, N], minus infinity where a query does not see a key."""
    sees = keys_at[None, :] <= position[:, None]
    if window is not None:
        sees = sees & (keys_at[None, :] > position[:, None] - window)
    return tl.where(sees, scores, float("-inf"))


@triton.jit
def _weigh(scores, best, total, out):
    """Weights [M, N] of a tile's keys, in powers of two, and what came before in their measure."""
    new_best = tl.maximum(best, tl.max(scores, axis=1))
    known = tl.where(new_best == float("-inf"), 0.0, new_best)
    weight = tl.exp2(scores - known[:, None])
    shrunk = tl.exp2(best - known)
    return weight, new_best, total * shrunk + tl.sum(weight, axis=1), out * shrunk[:, None]


@triton.jit(do_not_specialize=["num_sequences", "table_stride", "num_ranges"])
def _attend(
    query, query_stride, kept, scales, table, table_stride, starts, context_lens, num_sequences,
    bias, max_positions, scale, window, num_heads, num_kv_heads, size, block_size,
    out, partial, logsums, num_ranges, least_range,
    GROUP: tl.constexpr, DOT: tl.constexpr, TILE: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    tile, kv_head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = group_of(starts, num_sequences, tile, M // GROUP)
    start, query_len, begin = tile_of(starts, sequence, tile, M // GROUP)
    if begin < query_len:
        row = tl.arange(0, M)
        token = begin + row // GROUP
        is_there = (row < M // GROUP * GROUP) & (token < query_len)
        heads = kv_head * GROUP + row % GROUP
        element = tl.arange(0, D)[None, :]
        in_head = is_there[:, None] & (element < size)
        place = (start + token).to(tl.int64)[:, None]
        place_in_query = place * query_stride + heads[:, None] * size + element
        q = tl.load(query + place_in_query, mask=in_head, other=0.0).to(DOT)
        before = tl.load(context_lens + sequence) - query_len
        end = before + tl.minimum(begin + M // GROUP, query_len)
        range_len = tl.cdiv(before + query_len, num_ranges * TILE) * TILE
        if partial is not None:
            range_len = tl.maximum(range_len, least_range)
        first = part * range_len
        if window is not None:
            first = tl.maximum(first, before + begin - window + 1)
        best, total, found = _walk(
            q, before + token, heads, is_there, kept, scales, table + sequence * table_stride,
            kv_head, num_kv_heads, first, tl.minimum(end, (part + 1) * range_len), bias,
            max_positions, scale * _LOG2_E, window, block_size, size, DOT, TILE, M, D,
        )  # fmt: skip
        place = place * num_heads + heads[:, None]
        _leave(
            found, best, total, place, in_head, is_there, out, partial, logsums, part, num_ranges,
            element, size,
        )  # fmt: skip


@triton.jit
def _leave(
    found, best, total, place, in_head, is_there, out, partial, logsums, part, num_ranges, element,
    size,
):  # fmt: skip
    """Write what a tile's queries found: as their result, or as that of one range."""
    found = found / tl.where(total == 0, 1.0, total)[:, None]
    if partial is None:
        tl.store(out + place * size + element, found.to(out.dtype.element_ty), mask=in_head)
    else:
        place = place * num_ranges + part
        tl.store(partial + place * size + element, found, mask=in_head)
        logsum = tl.where(total == 0, float("-inf"), best + tl.log2(total))
        tl.store(logsums + place, logsum[:, None], mask=is_there[:, None])


@triton.jit(do_not_specialize=["num_ranges"])
def _join(partial, logsums, out, size, num_ranges, RANGES: tl.constexpr, D: tl.constexpr):
    """One head of one token: what its ranges found, weighted by how much each had to say."""
    row = tl.program_id(0).to(tl.int64)
    part, element = tl.arange(0, RANGES), tl.arange(0, D)
    logsum = tl.load(logsums + row * num_ranges + part, mask=part < num_ranges, other=float("-inf"))
    weight = tl.exp2(logsum - tl.max(logsum, axis=0))
    weight /= tl.sum(weight, axis=0)
    place = (row * num_ranges + part)[:, None] * size + element[None, :]
    is_there = (part < num_ranges)[:, None] & (element < size)[None, :]
    found = tl.load(partial + place, mask=is_there, other=0.0)
    joined = tl.sum(found * weight[:, None], axis=0)
    tl.store(out + row * size + element, joined.to(out.dtype.element_ty), mask=element < size)


def paged_attention(query: Tensor, cache: LayerKV, plan: AttentionPlan) -> Tensor:
    """Attention of query [T, H, D], whose tokens may lie apart: [T, H, D], dense, in its dtype."""
    shape, layout, size = plan.shape, plan.layout, plan.shape.head_dim
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    _check_query(query, cache, plan)
    if not out.numel():
        return out
    partial, logsums = _room_for_ranges(out, plan.num_ranges)
    bias, block_table = shape.key_bias, layout.block_table
    kept = cache.heads, cache.scales, block_table, block_table.stride(0)
    slices = layout.cu_seqlens_q, layout.context_lens, len(block_table)
    biases = bias, 0 if bias is None else bias.shape[1]
    sizes = shape.num_heads, shape.num_kv_heads, size, plan.block_size
    results = out, partial, logsums, plan.num_ranges, plan.least_range
    _attend[(plan.num_tiles, shape.num_kv_heads, plan.num_ranges)](
        *(query, query.stride(0), *kept, *slices, *biases),
        *(shape.scale, shape.window, *sizes, *results),
        GROUP=shape.num_heads // shape.num_kv_heads,
        DOT=dot_type(query.dtype),
        TILE=KEYS_TILE,
        M=plan.rows,
        D=power_of_two(size, least=16),
    )
    if partial is not None:
        ranges = power_of_two(plan.num_ranges)
        _join[(out.numel() // size,)](
            *(partial, logsums, out, size, plan.num_ranges), RANGES=ranges, D=power_of_two(size)
        )
    return out


def _room_for_ranges(out: Tensor, num_ranges: int) -> tuple[Tensor | None, Tensor | None]:
    """Where ranges leave what they found, and how much it weighs; none for a single range."""
    if num_ranges == 1:
        return None, None
    tokens, heads, size = out.shape
    partial = torch.empty(tokens, heads, num_ranges, size, device=out.device)
    return partial, torch.empty(tokens, heads, num_ranges, device=out.device)


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
