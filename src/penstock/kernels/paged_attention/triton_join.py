"""What queries found in ranges of keys, a program for each, put together
(https://arxiv.org/abs/2311.01282).
"""

import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.paged_attention.triton_walk import LOG2_E, add
from penstock.kernels.triton.target import power_of_two


@triton.jit
def with_sinks(total, best, sinks, heads):
    """A sum of weights, which are relative to the best score, with what the sinks of heads add to
    it, if there are any. Once for every query, when all ranges are put together. Three kernels do
    this; that the exponent is rounded once, as written here, makes them agree.
    """
    if sinks is not None:
        total += tl.exp2(tl.fma(tl.load(sinks + heads), LOG2_E, -best))
    return total


@triton.jit
def mean(found, total):
    """Weighted values [M, D] by the sum of their weights; zeros where there is none."""
    return found / tl.where(total == 0, 1.0, total)[:, None]


@triton.jit(do_not_specialize=["num_ranges"])
def _join(
    partial, sums, sinks, out, num_heads, size, num_ranges, RANGES: tl.constexpr, D: tl.constexpr
):
    """One head of one token: what its ranges found, weighted by how much each had to say."""
    row = tl.program_id(0).to(tl.int64)
    part, element = tl.arange(0, RANGES), tl.arange(0, D)
    is_range = part < num_ranges
    place = row * num_ranges + part
    best = tl.load(sums + 2 * place, mask=is_range, other=float("-inf"))
    most = tl.max(best, axis=0)
    weight = tl.exp2(best - most)
    total = tl.sum(weight * tl.load(sums + 2 * place + 1, mask=is_range, other=0.0), axis=0)
    total = with_sinks(total, most, sinks, row % num_heads)
    is_there = is_range[:, None] & (element < size)[None, :]
    found = tl.load(partial + place[:, None] * size + element[None, :], mask=is_there, other=0.0)
    joined = tl.sum(found * weight[:, None], axis=0) / total
    tl.store(out + row * size + element, joined.to(out.dtype.element_ty), mask=element < size)


@triton.jit(do_not_specialize=["num_ranges"])
def _join_in_order(
    partial, sums, sinks, positions, out, num_heads, size, num_ranges,
    RANGE: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """The same of ranges of one length, up to the token's own, as one program would have done it
    that had walked over all of them.
    """
    row = tl.program_id(0).to(tl.int64)
    one, element = tl.arange(0, 1), tl.arange(0, D)[None, :]
    best = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    found = tl.zeros([1, D], tl.float32)
    last = (tl.load(positions + row // num_heads) // RANGE).to(tl.int32)
    for part in range(tl.minimum(last + 1, num_ranges)):
        place = row * num_ranges + part
        more = tl.load(partial + place * size + element, mask=element < size, other=0.0)
        more_best, more_total = (
            tl.load(sums + 2 * place + one), tl.load(sums + 2 * place + 1 + one)
        )  # fmt: skip
        best, total, found = add(best, total, found, more_best, more_total, more)
    total = with_sinks(total, best, sinks, row % num_heads)
    result = mean(found, total).to(out.dtype.element_ty)
    tl.store(out + row * size + element, result, mask=element < size)


def join(
    partial: Tensor,
    sums: Tensor,
    sinks: Tensor | None,
    positions: Tensor,
    out: Tensor,
    fixed_range: int,
) -> None:
    """Write to out [T, H, D] what queries found in all of their ranges: partial [T, H, R, D], the
    weighted values, and sums [T, H, R, 2], the best score and the sum of weights. sinks [H] join
    them.
    """
    num_heads, num_ranges, size = partial.shape[1:]
    grid = (out.numel() // size,)
    if fixed_range:
        _join_in_order[grid](
            *(partial, sums, sinks, positions, out, num_heads, size, num_ranges),
            RANGE=fixed_range,
            D=power_of_two(size),
        )
    else:
        _join[grid](
            *(partial, sums, sinks, out, num_heads, size, num_ranges),
            RANGES=power_of_two(num_ranges),
            D=power_of_two(size),
        )
