"""The conformance table as Triton's interpreter can bear it: it is thousands of times slower than a
GPU.
"""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.ops import LayerKV, Ops
from penstock.kernels.quantization import FP8, quantize_rows, quantize_rows_to_fp8
from penstock.kernels.sampling.contract import Shaping
from tests.kernels.table import TABLE

TOO_LONG = {
    "a context of 5,000",
    "a context of 5,000, capped, with sinks",
    "contexts of 1 and of 5,000",
    "heads of 128",
    "heads of 256, capped",
}
"""Attention over thousands of keys; tests/kernels/test_triton.py cuts short contexts instead."""
MOST_ROWS = 3
"""Of logits; every row is computed alone."""

EVERY_CASE = [
    (op, name) for op, entry in TABLE.items() for name in entry.cases if name not in TOO_LONG
]


def filling_at_once(ops: Ops) -> Ops:
    """The same operations for tests of attention, which fill whole caches first: the kernel that
    writes into one takes a program for every token, this some lines of torch.
    """
    return replace(ops, rope_write_kv=_write)


def _write(heads: Tensor, norm: None, rotation: None, cache: LayerKV, slots: Tensor) -> Tensor:
    num_kept, block_size = 2 * cache.shape.num_kv_heads, cache.shape.block_size
    at = slots // block_size, slice(None), slots % block_size
    query, kept = heads.split((heads.shape[1] - num_kept, num_kept), dim=1)
    if cache.scales is not None:
        round_rows = quantize_rows_to_fp8 if cache.heads.dtype == FP8 else quantize_rows
        kept, cache.scales[at], _ = round_rows(kept)
    if cache.heads.dtype == FP8:  # torch puts none of these into places
        cache.heads.view(torch.uint8)[at] = kept.view(torch.uint8)
    else:
        cache.heads[at] = kept.to(cache.heads.dtype)
    return query


def shortened(op: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a case, of the first rows of logits alone."""
    if op not in ("argmax", "draw", "top_logprobs"):
        return values
    return tuple(_first(value) for value in values)


def _first(value: Any) -> Any:
    if isinstance(value, Shaping):
        columns = {each.name: getattr(value, each.name) for each in fields(Shaping)}
        return Shaping(
            **{name: None if c is None else c[:MOST_ROWS] for name, c in columns.items()}
        )
    return value if isinstance(value, int) else value[:MOST_ROWS]
