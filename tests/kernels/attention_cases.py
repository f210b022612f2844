"""Paged attention: steps of every awkward composition, and attention as its definition says."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from tests.kernels.paged_cache import BLOCK_SIZE, filled_cache
from tests.paged_steps import lay_out, scattered_rows

SIZE = 8


def attend(
    ops: Ops,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: StepLayout,
    shape: AttentionShape,
    sinks: Tensor | None = None,
    *,
    dtype: str = "float32",
) -> Tensor:
    """keys and values are [num_blocks, block_size, K, D]; dtype is that of the cache."""
    plan = ops.plan_attention(layout, shape, keys.shape[1])
    return ops.paged_attention(query, filled_cache(ops, keys, values, dtype=dtype), plan, sinks)


def attend_formula(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: StepLayout,
    shape: AttentionShape,
    sinks: Tensor | None = None,
) -> Tensor:
    """Sequence by sequence, query by query, head by head."""
    out, row, block_size = torch.zeros(query.shape, dtype=torch.float64), 0, keys.shape[1]
    lens = zip(layout.query_lens_host, layout.context_lens_host, strict=True)
    for sequence, (query_len, context_len) in enumerate(lens):
        blocks = layout.block_table[sequence, : -(-context_len // block_size)]
        key = keys[blocks].double().flatten(0, 1)[:context_len]
        value = values[blocks].double().flatten(0, 1)[:context_len]
        for position in range(context_len - query_len, context_len):
            first = max(0, position + 1 - shape.window) if shape.window else 0
            for head in range(shape.num_heads):
                kv_head = head * shape.num_kv_heads // shape.num_heads
                seen = slice(first, position + 1)
                scores = key[seen, kv_head] @ query[row, head].double() * shape.scale
                if shape.soft_cap is not None:
                    scores = shape.soft_cap * torch.tanh(scores / shape.soft_cap)
                if shape.key_bias is not None:
                    scores = scores + shape.key_bias[head, seen]
                weights = torch.exp(scores)
                total = weights.sum() + (0 if sinks is None else torch.exp(sinks[head].double()))
                out[row, head] = weights / total @ value[seen, kv_head]
            row += 1
    return out


def case(
    *slices: tuple[int, int],
    heads: tuple[int, int] = (4, 2),
    block_size: int = BLOCK_SIZE,
    window: int | None = None,
    biased: bool = False,
    size: int = SIZE,
    soft_cap: float | None = None,
    sinks: bool = False,
) -> Callable[[torch.Generator], tuple[Any, ...]]:
    """A step of slices (query length, context length), in blocks scattered among others'."""

    def build(generator: torch.Generator) -> tuple[Any, ...]:
        rows, num_blocks = scattered_rows([[0] * length for _, length in slices], block_size)
        for row, (query_len, context_len) in zip(rows, slices, strict=True):
            row.num_computed = context_len - query_len
        token_ids, layout = lay_out(rows, [query_len for query_len, _ in slices], block_size)
        cache = (num_blocks, block_size, heads[1], size)
        bias = torch.randn(heads[0], 64, generator=generator) if biased else None
        shape = AttentionShape(
            num_heads=heads[0],
            num_kv_heads=heads[1],
            head_dim=size,
            scale=0.3,
            soft_cap=soft_cap,
            window=window,
            key_bias=bias,
        )
        query, keys, values = (
            torch.randn(*dims, generator=generator)
            for dims in ((len(token_ids), heads[0], size), cache, cache)
        )
        step = query, keys, values, layout, shape
        return (*step, 3 * torch.randn(heads[0], generator=generator)) if sinks else step

    return build


def extreme_sinks(generator: torch.Generator) -> tuple[Any, ...]:
    """None at all, one that leaves next to nothing to the keys, and some so far from their scores
    that no float is as large as what lies between them.
    """
    step = case(*MIXED, heads=(6, 2))(generator)
    return *step, torch.tensor([-torch.inf, 30, -1e4, 1e4, 0, -100])


MIXED = ((1, 9), (5, 5), (1, 1), (3, 17), (1, 30), (2, 2))

ATTENTION: Mapping[str, Callable[[torch.Generator], tuple[Any, ...]]] = {
    "no sequence": case(),
    "one token, context of one": case((1, 1)),
    "a slice of nothing between others": case((1, 3), (0, 5), (2, 7)),
    "nothing but empty slices": case((0, 5), (0, 1)),
    "a context of 5,000": case((1, 5000), heads=(2, 1)),
    "contexts of 1 and of 5,000": case((1, 1), (1, 5000), (1, 700), heads=(2, 1)),
    "more queries than a piece holds": case((300, 310), heads=(2, 1)),
    "one more query than a piece holds": case((257, 257), heads=(1, 1)),
    "every kind of slice": case(*MIXED),
    "single tokens of equal contexts": case((1, 6), (1, 6), (1, 6)),
    "contexts that end with a block": case((1, 16), (16, 16), (3, 48), (32, 32)),
    "heads of 64": case(*MIXED, heads=(14, 2), size=64),
    "heads of 80": case(*MIXED, size=80),
    "heads of 128": case((1, 700), (40, 300), heads=(8, 2), size=128),
    "one head": case(*MIXED, heads=(1, 1)),
    "as many key-value heads as queries": case(*MIXED, heads=(3, 3)),
    "one key-value head for all": case(*MIXED, heads=(5, 1)),
    "a window": case(*MIXED, window=4),
    "a window of one": case(*MIXED, window=1),
    "a window longer than every context": case(*MIXED, window=100),
    "a window that ends between pieces": case((300, 310), heads=(1, 1), block_size=16, window=40),
    "a bias on keys": case(*MIXED, biased=True),
    "a bias on keys and a window": case(*MIXED, biased=True, window=4),
    "capped scores": case(*MIXED, soft_cap=0.7),
    "capped scores, a bias on keys and a window": case(*MIXED, soft_cap=2.0, biased=True, window=4),
    "sinks": case(*MIXED, sinks=True),
    "sinks and a window": case(*MIXED, heads=(6, 2), sinks=True, window=4),
    "sinks, capped scores and a bias on keys": case(*MIXED, sinks=True, soft_cap=2.0, biased=True),
    "sinks that take all, or nothing": extreme_sinks,
    "heads of 64 with sinks": case(*MIXED, heads=(16, 2), size=64, window=8, sinks=True),
    "heads of 256, capped": case((1, 700), (40, 300), heads=(4, 2), size=256, soft_cap=5.0),
    "a context of 5,000, capped, with sinks": case(
        (1, 5000), heads=(2, 1), soft_cap=5.0, sinks=True
    ),
}
