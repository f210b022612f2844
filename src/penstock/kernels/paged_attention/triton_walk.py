"""How a tile of queries reads keys and values of the paged cache, softmax on the way
(https://arxiv.org/abs/2205.14135).
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
"""Scores are exponents of 2: what e is there."""


@triton.jit
def walk(
    query, position, heads, rows, kept, scales, table, kv_head, num_kv_heads, first, end, bias,
    max_positions, scale, cap, window, block_size, size,
    FIXED: tl.constexpr, DOT: tl.constexpr, TILE: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """What queries [M, D] find in the keys from first to end: the best score and the sum of weights
    [M] of each, and the weighted sum of values [M, D]. Where FIXED is not 0, one range of so many
    keys after the other, each as if it were the only one.

    Whatever may be None (scales, bias, cap, window) is so when the kernel is compiled: who has none
    runs a program without it.
    """
    if FIXED > 0:
        best = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        found = tl.zeros([M, D], tl.float32)
        for start in range(first // FIXED * FIXED, end, FIXED):
            more_best, more_total, more = _walk_one(
                query, position, heads, rows, kept, scales, table, kv_head, num_kv_heads,
                tl.maximum(first, start), tl.minimum(end, start + FIXED), bias, max_positions,
                scale, cap, window, block_size, size, DOT, TILE, M, D,
            )  # fmt: skip
            best, total, found = add(best, total, found, more_best, more_total, more)
    else:
        best, total, found = _walk_one(
            query, position, heads, rows, kept, scales, table, kv_head, num_kv_heads, first, end,
            bias, max_positions, scale, cap, window, block_size, size, DOT, TILE, M, D,
        )  # fmt: skip
    return best, total, found


@triton.jit
def _walk_one(
    query, position, heads, rows, kept, scales, table, kv_head, num_kv_heads, first, end, bias,
    max_positions, scale, cap, window, block_size, size,
    DOT: tl.constexpr, TILE: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """The same over one range, tile by tile."""
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
        if cap is not None:
            scores = _squeezed(scores, cap * LOG2_E)
        if bias is not None:
            place = heads[:, None] * max_positions + keys_at[None, :]
            is_known = rows[:, None] & is_there[None, :]
            scores += tl.load(bias + place, mask=is_known, other=0.0) * LOG2_E
        scores = _seen(scores, position, keys_at, window)
        weight, best, total, out = _weigh(scores, best, total, out)
        if scales is not None:
            weight *= tl.load(scales + value_row, mask=is_there, other=0.0)[None, :]
        out = tl.dot(weight.to(DOT), value.to(DOT), out, input_precision="ieee")
    return best, total, out


@triton.jit
def _squeezed(scores, cap):
    """cap * tanh(score / cap), within a millionth of the cap (https://arxiv.org/abs/2408.00118). By
    way of the sigmoid: of hyperbolic tangents Triton has but those of libraries.
    """
    return cap * (2.0 * tl.sigmoid(scores * (2.0 / cap)) - 1.0)


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


@triton.jit
def add(best, total, found, more_best, more_total, more):
    """What queries [M] found in some keys and in those that follow: the best score, the sum of
    weights, and the weighted values [M, D] of both. To have found nothing changes no bit of it. Two
    kernels do this; that each product and sum is rounded as written here makes them agree.
    """
    new_best = tl.maximum(best, more_best)
    known = tl.where(new_best == float("-inf"), 0.0, new_best)
    share, more_share = tl.exp2(best - known), tl.exp2(more_best - known)
    total = tl.fma(total, share, more_total * more_share)
    found = tl.fma(found, share[:, None], more * more_share[:, None])
    return new_best, total, found
