"""Attention in C++ over the paged cache (https://arxiv.org/abs/2205.14135): small matrix products
on registers over the rows that share a key-value head, softmax between them while all of it is in
the L1 cache, and long contexts cut into ranges for all threads.

A query's result does not depend, to the last bit, on how its prompt was cut, on who else is in the
batch, or on the number of threads: keys are summed up in an order that their positions alone
determine.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address, empty
from penstock.kernels.kv_cache.cpu import LayerKV
from penstock.kernels.paged_attention.contract import AttentionShape, check_sinks
from penstock.kernels.step_layout import StepLayout


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """The kernel's work items, and the shape whose tensors they refer to."""

    shape: AttentionShape
    native: Any


def plan_attention(layout: StepLayout, shape: AttentionShape, block_size: int) -> AttentionPlan:
    """Cut a step into work items. Raises ValueError where the layout contradicts itself or the
    shape.
    """
    bias, max_positions = _bias(shape)
    num_sequences, max_blocks = layout.block_table.shape
    lens = layout.cu_seqlens_q.shape, layout.context_lens.shape
    if lens != ((num_sequences + 1,), (num_sequences,)) or block_size % _native.TILE_TOKENS:
        raise ValueError(
            f"A step of {num_sequences} sequences with query and context lengths of shape "
            f"{[list(each) for each in lens]} and blocks of {block_size} cannot be laid out."
        )
    native = _native.plan_attention(
        address(layout.cu_seqlens_q, "cu_seqlens_q", torch.int32),
        address(layout.context_lens, "context_lens", torch.int32),
        num_sequences,
        address(layout.block_table, "block_table", torch.int64),
        max_blocks,
        block_size // _native.TILE_TOKENS,
        shape.num_heads,
        shape.num_kv_heads,
        shape.head_dim,
        shape.scale,
        shape.soft_cap or 0.0,
        shape.window or 0,
        bias,
        max_positions,
    )
    return AttentionPlan(shape, native)


def paged_attention(
    query: Tensor, cache: LayerKV, plan: AttentionPlan, sinks: Tensor | None = None
) -> Tensor:
    """Attention of query [T, H, D] float32, whose tokens may lie apart: [T, H, D], dense."""
    num_tokens, num_heads, size = query.shape
    stride, *inner = query.stride()
    if (
        (num_heads, size) != (plan.shape.num_heads, plan.shape.head_dim)
        or query.dtype is not torch.float32
        or inner != [size, 1]
    ):
        raise ValueError(
            f"Queries {list(query.shape)} of {query.dtype} with strides {list(query.stride())} do "
            f"not fit {plan.shape.num_heads} dense heads of {plan.shape.head_dim} in float32."
        )
    out = empty(*query.shape)
    places = query.data_ptr(), stride, out.data_ptr(), num_tokens
    check_sinks(sinks, plan.shape)
    sinks_at = 0 if sinks is None else address(sinks, "sinks")
    _native.paged_attention(*places, cache.native, plan.native, sinks_at)
    return out


def _bias(shape: AttentionShape) -> tuple[int, int]:
    if shape.key_bias is None:
        return 0, 0
    num_heads, max_positions = shape.key_bias.shape
    if num_heads != shape.num_heads:
        raise ValueError(f"A bias for {num_heads} heads does not fit {shape.num_heads}.")
    return address(shape.key_bias, "key_bias"), max_positions
