"""From logits to tokens on a GPU: a program for each row, which reads it a few times and writes one
number. Thresholds come from a search over their bits (`triton_threshold.py`); nothing is sorted.

A row's sums have an order of their own, so companions never change its token.
"""

from dataclasses import fields

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.sampling.contract import Shaping
from penstock.kernels.sampling.triton_threshold import (
    ANYWHERE,
    FARTHEST_FINITE,
    bits_of,
    distances,
    find_cut,
    weights,
)
from penstock.kernels.triton.target import check_rows, power_of_two

_BLOCK = 4096
_WARPS = 8


@triton.jit
def _numbers(logits, token, vocab_size):
    """Logits as numbers: what is not one is minus infinity."""
    logit = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
    return tl.where(logit != logit, float("-inf"), logit)


@triton.jit
def _best(logits, vocab_size, value, after, BLOCK: tl.constexpr):
    """The largest logit of a row, and its first token, among those that come behind (value, after)
    when the row is sorted by logit, equals by token.
    """
    offset = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    first = tl.full([BLOCK], 0, tl.int32) + vocab_size
    for start in range(0, vocab_size, BLOCK):
        token = start + offset
        logit = _numbers(logits, token, vocab_size)
        is_behind = (logit < value) | ((logit == value) & (token > after))
        is_better = is_behind & (token < vocab_size) & ((logit > largest) | (first == vocab_size))
        first = tl.where(is_better, token, first)
        largest = tl.where(is_better, logit, largest)
    best = tl.max(largest, axis=0)
    return best, tl.min(tl.where(largest == best, first, vocab_size), axis=0)


@triton.jit
def _argmax(logits, out, vocab_size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    _, token = _best(logits + row * vocab_size, vocab_size, float("inf"), -1, BLOCK)
    tl.store(out + row, token.to(tl.int64))


@triton.jit
def _total(logits, vocab_size, best, temperature, limit, mean, typical_limit, BLOCK: tl.constexpr):
    """The weight of a row's tokens within the limits, and the sum of weights times distances."""
    total = tl.sum(tl.zeros([BLOCK], tl.float64), axis=0)
    moment = total
    for start in range(0, vocab_size, BLOCK):
        distance = distances(logits, start, vocab_size, best, temperature, BLOCK)
        weight = weights(distance, limit, mean, typical_limit).to(tl.float64)
        total += tl.sum(weight, axis=0)
        moment += tl.sum(tl.where(weight > 0, weight * distance, 0.0), axis=0)
    return total, moment


@triton.jit
def _limit_of(logits, row, vocab_size, best, temperature, top_k, top_p, min_p, BLOCK: tl.constexpr):
    """The bits of the farthest distance below the best logit that top_k, top_p and min_p keep."""
    limit = tl.max(tl.full([1], FARTHEST_FINITE, tl.int32), axis=0)
    if top_k is not None:
        k = tl.load(top_k + row)
        if (k >= 1) & (k < vocab_size):
            cut = find_cut(logits, vocab_size, best, temperature, limit, 0.0, k, True, False, BLOCK)
            limit = tl.minimum(limit, cut)
    if top_p is not None:
        p = tl.load(top_p + row)
        if p < 1:
            total, _ = _total(logits, vocab_size, best, temperature, limit, 0.0, ANYWHERE, BLOCK)
            cut = find_cut(
                logits, vocab_size, best, temperature, limit, 0.0, p * total, False, False, BLOCK
            )
            limit = tl.minimum(limit, cut)
    if min_p is not None:
        farthest = tl.maximum(-tl.log(tl.load(min_p + row)), 0.0)
        limit = tl.minimum(limit, bits_of(farthest))
    return limit


@triton.jit
def _typical_limit_of(
    logits, row, vocab_size, best, temperature, limit, typical_p, BLOCK: tl.constexpr
):
    """The mean distance of the tokens within the limit, and the bits of how far from it typical_p
    keeps them.
    """
    mean = tl.max(tl.zeros([1], tl.float32), axis=0)
    cut = tl.max(tl.full([1], ANYWHERE, tl.int32), axis=0)
    if typical_p is not None:
        p = tl.load(typical_p + row)
        if p < 1:
            total, moment = _total(
                logits, vocab_size, best, temperature, limit, 0.0, ANYWHERE, BLOCK
            )
            mean = (moment / total).to(tl.float32)
            cut = find_cut(
                logits, vocab_size, best, temperature, limit, mean, p * total, False, True, BLOCK
            )
    return mean, cut


@triton.jit
def _look_up(
    logits, vocab_size, best, temperature, limit, mean, typical_limit, uniform,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The token at which the weights of a row, added up in the order of the vocabulary, exceed the
    uniform's share of their total.
    """
    total, _ = _total(logits, vocab_size, best, temperature, limit, mean, typical_limit, BLOCK)
    sought = uniform * total
    passed = total * 0.0
    before = passed
    block = 0
    for start in range(0, vocab_size, BLOCK):
        distance = distances(logits, start, vocab_size, best, temperature, BLOCK)
        weight = weights(distance, limit, mean, typical_limit).to(tl.float64)
        is_not_yet = passed <= sought
        block = tl.where(is_not_yet, start, block)
        before = tl.where(is_not_yet, passed, before)
        passed += tl.sum(weight, axis=0)
    token = block + tl.arange(0, BLOCK)
    distance = distances(logits, block, vocab_size, best, temperature, BLOCK)
    weight = weights(distance, limit, mean, typical_limit).to(tl.float64)
    last = tl.max(tl.where(weight > 0, token, 0), axis=0)
    is_reached = (before + tl.cumsum(weight, axis=0) > sought) & (weight > 0)
    return tl.minimum(tl.min(tl.where(is_reached, token, vocab_size), axis=0), last)


@triton.jit
def _draw(
    logits, temperature, top_k, top_p, min_p, typical_p, uniforms, out, vocab_size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab_size
    best, token = _best(logits, vocab_size, float("inf"), -1, BLOCK)
    heat = tl.max(tl.full([1], 1.0, tl.float32), axis=0)
    if temperature is not None:
        heat = tl.load(temperature + row)
    if (heat != 0) & (tl.abs(best) < float("inf")):
        limit = _limit_of(logits, row, vocab_size, best, heat, top_k, top_p, min_p, BLOCK)
        mean, typical_limit = _typical_limit_of(
            logits, row, vocab_size, best, heat, limit, typical_p, BLOCK
        )
        token = _look_up(
            logits, vocab_size, best, heat, limit, mean, typical_limit,
            tl.load(uniforms + row), BLOCK,
        )  # fmt: skip
    tl.store(out + row, token.to(tl.int64))


@triton.jit
def _top_logprobs(
    logits, chosen, logprobs, ranks, ids, values, vocab_size, num_top, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab_size
    best, token = _best(logits, vocab_size, float("inf"), -1, BLOCK)
    own = _numbers(logits, tl.load(chosen + row), vocab_size)
    total = tl.sum(tl.zeros([BLOCK], tl.float64), axis=0)
    rank = tl.sum(tl.zeros([BLOCK], tl.int32), axis=0) + 1
    for start in range(0, vocab_size, BLOCK):
        logit = _numbers(logits, start + tl.arange(0, BLOCK), vocab_size)
        total += tl.sum(tl.exp(logit - best), axis=0)
        rank += tl.sum((logit > own).to(tl.int32), axis=0)
    log_total = best + tl.log(total).to(tl.float32)
    tl.store(logprobs + row, own - log_total)
    tl.store(ranks + row, rank.to(tl.int64))
    value = best
    for place in range(num_top):
        tl.store(ids + row * num_top + place, token.to(tl.int64))
        tl.store(values + row * num_top + place, value - log_total)
        value, token = _best(logits, vocab_size, value, token, BLOCK)


def argmax(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits, float32 [R, V]: int64 [R]."""
    logits = _checked(logits)
    out = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    if len(logits):
        _argmax[(len(logits),)](logits, out, logits.shape[1], **_launch(logits))
    return out


def draw(logits: Tensor, shaping: Shaping, uniforms: Tensor) -> Tensor:
    """Draw a token for each row of logits, float32 [R, V]: int64 [R]."""
    logits = _checked(logits)
    rows = len(logits)
    columns = [_column(getattr(shaping, each.name), each.name, rows) for each in fields(Shaping)]
    uniforms = check_rows(uniforms, "uniforms", rows).double()
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if rows:
        _draw[(rows,)](logits, *columns, uniforms, out, logits.shape[1], **_launch(logits))
    return out


def top_logprobs(
    logits: Tensor, chosen: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row of logits, float32 [R, V]: log probability and rank of the chosen token, then ids
    and log probabilities of the likeliest, equals in the order of their ids.
    """
    logits = _checked(logits)
    rows, device = len(logits), logits.device
    num_top = min(num_top, logits.shape[1])
    chosen = check_rows(chosen, "chosen", rows)
    logprobs, values = torch.empty(rows, device=device), torch.empty(rows, num_top, device=device)
    ranks = torch.empty(rows, dtype=torch.int64, device=device)
    ids = torch.empty(rows, num_top, dtype=torch.int64, device=device)
    if rows:
        _top_logprobs[(rows,)](
            logits,
            chosen,
            logprobs,
            ranks,
            ids,
            values,
            logits.shape[1],
            num_top,
            **_launch(logits),
        )
    return logprobs, ranks, ids, values


def _checked(logits: Tensor) -> Tensor:
    if logits.dtype != torch.float32 or logits.dim() != 2 or not logits.shape[1]:
        raise ValueError(
            f"Logits are float32 [R, V] with V at least 1, not {logits.dtype} {list(logits.shape)}."
        )
    return logits.contiguous()


def _column(values: Tensor | None, name: str, rows: int) -> Tensor | None:
    return None if values is None else check_rows(values, name, rows)


def _launch(logits: Tensor) -> dict[str, int]:
    """How rows of this length are read."""
    return {"BLOCK": min(_BLOCK, power_of_two(logits.shape[1], least=16)), "num_warps": _WARPS}
