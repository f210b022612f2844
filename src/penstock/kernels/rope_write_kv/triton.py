"""Head norms, rotation, rounding and the write into the cache on a GPU: each head is read once.

A program takes some heads of one token. What differs between queries, keys and values is in masks:
values turn by nothing, and only queries leave by way of the output.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.kv_cache.triton import LayerKV, rounded
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.triton import norm_arguments, normalise
from penstock.kernels.rope_write_kv.reference import Rotation
from penstock.kernels.triton.target import check_rows, power_of_two

_HEADS_BLOCK = 8


@triton.jit
def _load(heads, weight, bias, row, element, is_there, is_turned, size, eps, KIND: tl.constexpr):
    """Heads [N, D] in float32, those that are turned normalised; elements in any order."""
    x = tl.load(heads + row[:, None] * size + element, mask=is_there, other=0.0).to(tl.float32)
    if KIND is not None:
        place = row[:, None] * size + element
        scale = tl.load(weight + place, mask=is_turned, other=1.0).to(tl.float32)
        shift = scale
        if KIND == "layer":
            shift = tl.load(bias + place, mask=is_turned, other=0.0).to(tl.float32)
        y = normalise(x, scale, shift, is_there, size, eps, KIND == "layer")
        x = tl.where(is_turned, y, x)
    return x


@triton.jit
def _angles(cos, sin, token, element, is_turned, half):
    """What an element, and its partner in the pair, are multiplied by: [N, D] each."""
    in_pair = is_turned & (element < 2 * half)
    place = token * half + element % tl.maximum(half, 1)
    own = tl.load(cos + place, mask=in_pair, other=1.0)
    others = tl.load(sin + place, mask=in_pair, other=0.0)
    return own, tl.where(element < half, -others, others)


@triton.jit
def _keep(
    kept, scales, x, row, element, slot, is_there, num_rows, size, block_size,
    LARGEST: tl.constexpr, TO_INTEGERS: tl.constexpr,
):  # fmt: skip
    """Put heads [N, D] of a token, keys or values, into its slot of the cache."""
    place = (slot // block_size * num_rows + row) * block_size + slot % block_size
    if LARGEST is not None:
        x, scale = rounded(x, LARGEST, TO_INTEGERS)
        tl.store(scales + place, scale, mask=tl.max(is_there.to(tl.int32), axis=1) > 0)
    target = kept + place[:, None] * size + element
    tl.store(target, x.to(kept.dtype.element_ty), mask=is_there)


@triton.jit
def _rope_write_kv(
    heads, weight, bias, eps, cos, sin, half, slots, num_slots, query, kept, scales,
    num_heads, num_kv_heads, size, block_size,
    KIND: tl.constexpr, LARGEST: tl.constexpr, TO_INTEGERS: tl.constexpr,
    HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    element = tl.arange(0, BLOCK)[None, :]
    num_rows = num_heads + 2 * num_kv_heads
    heads += token * num_rows * size
    is_there = (row < num_rows)[:, None] & (element < size)
    is_turned = (row < num_heads + num_kv_heads)[:, None] & (element < size)
    x = _load(heads, weight, bias, row, element, is_there, is_turned, size, eps, KIND)
    if cos is not None:
        other = tl.where(element < half, element + half, element - half)
        other = tl.where(element < 2 * half, other, element)
        y = _load(heads, weight, bias, row, other, is_there, is_turned, size, eps, KIND)
        own, others = _angles(cos, sin, token, element, is_turned, half)
        x = x * own + y * others
    is_query = is_there & (row < num_heads)[:, None]
    target = query + (token * num_heads + row[:, None]) * size + element
    tl.store(target, x.to(query.dtype.element_ty), mask=is_query)
    slot = tl.load(slots + token)
    is_kept = is_there & (row >= num_heads)[:, None] & (slot >= 0) & (slot < num_slots)
    _keep(
        kept, scales, x, row - num_heads, element, slot, is_kept, 2 * num_kv_heads, size,
        block_size, LARGEST, TO_INTEGERS,
    )  # fmt: skip


def rope_write_kv(
    heads: Tensor,
    head_norm: Norm | None,
    rotation: Rotation | None,
    cache: LayerKV,
    slot_mapping: Tensor,
) -> Tensor:
    """As the reference does, rounded once; the queries are a new tensor. A token whose slot is
    negative, or beyond the cache, leaves nothing in it: a captured graph has such tokens.
    """
    num_kv_heads, size = cache.shape.num_kv_heads, cache.shape.head_dim
    heads = check_rows(heads, "heads", None, None, size)
    num_heads = heads.shape[1] - 2 * num_kv_heads
    slots = check_rows(slot_mapping, "slot_mapping", len(heads))
    _check(head_norm, rotation, heads, num_heads, num_kv_heads)
    query = torch.empty(len(heads), num_heads, size, dtype=heads.dtype, device=heads.device)
    eps = 0.0 if head_norm is None else head_norm.eps
    sizes = num_heads, num_kv_heads, size, cache.shape.block_size
    if len(heads):
        _rope_write_kv[(len(heads), triton.cdiv(heads.shape[1], _HEADS_BLOCK))](
            *(heads, *norm_arguments(head_norm), eps, *_angles_of(rotation), slots),
            *(cache.num_slots, query, cache.heads, cache.scales, *sizes),
            KIND=None if head_norm is None else head_norm.kind,
            LARGEST=cache.largest,
            TO_INTEGERS=cache.shape.dtype == "int8",
            HEADS=_HEADS_BLOCK,
            BLOCK=power_of_two(size),
        )
    return query


def _angles_of(rotation: Rotation | None) -> tuple[Tensor | None, Tensor | None, int]:
    """Cosines, sines, and how many of them there are for each token."""
    if rotation is None:
        return None, None, 0
    cos, sin = rotation
    return cos.contiguous(), sin.contiguous(), cos.shape[1]


def _check(
    norm: Norm | None, rotation: Rotation | None, heads: Tensor, num_heads: int, num_kv_heads: int
) -> None:
    """Raises ValueError for what does not fit the heads [T, H + 2 * K, D]."""
    if num_heads <= 0:
        raise ValueError(f"Heads {list(heads.shape)} leave no query beside {num_kv_heads} keys.")
    turned = (num_heads + num_kv_heads, heads.shape[2])
    if norm is not None and any(
        part is not None and part.shape != turned for part in (norm.weight, norm.bias)
    ):
        raise ValueError(
            f"A norm of {list(norm.weight.shape)} cannot take heads of {list(turned)}."
        )
    if rotation is not None:
        cos, sin = rotation
        expected = (len(heads), cos.shape[-1])
        if cos.shape != expected or sin.shape != expected or 2 * cos.shape[1] > heads.shape[2]:
            raise ValueError(
                f"Rotations {list(cos.shape)} and {list(sin.shape)} do not fit {list(heads.shape)}."
            )
