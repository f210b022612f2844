"""Head norms, rotation and the write into the cache in C++: each head is read and written once."""

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address
from penstock.kernels.kv_cache.cpu import LayerKV
from penstock.kernels.norm.contract import Norm
from penstock.kernels.rope_write_kv.reference import Rotation


def rope_write_kv(
    heads: Tensor,
    head_norm: Norm | None,
    rotation: Rotation | None,
    cache: LayerKV,
    slot_mapping: Tensor,
) -> Tensor:
    """As the reference does. heads is float32 and dense; the queries are returned where they were.

    Raises ValueError for tensors of the wrong shape or type, and IndexError for a slot that the
    cache does not have; what belongs to other tokens may then be written already.
    """
    num_tokens, count, size = heads.shape
    num_kv_heads = cache.shape.num_kv_heads
    num_heads = count - 2 * num_kv_heads
    if size != cache.shape.head_dim or num_heads <= 0 or slot_mapping.shape != (num_tokens,):
        raise ValueError(
            f"Heads {list(heads.shape)} with slots {list(slot_mapping.shape)} do not fit a cache "
            f"of {num_kv_heads} heads of {cache.shape.head_dim}."
        )
    _native.rope_write_kv(
        address(heads, "heads"),
        *_norm_parts(head_norm, num_heads + num_kv_heads, size),
        *_rotation_parts(rotation, num_tokens, size),
        cache.native,
        address(slot_mapping, "slot_mapping", torch.int64),
        num_tokens,
        num_heads,
    )
    return heads[:, :num_heads]


def _norm_parts(norm: Norm | None, num_heads: int, size: int) -> tuple[int, int, float]:
    if norm is None:
        return 0, 0, 0.0
    parts = (norm.weight,) if norm.bias is None else (norm.weight, norm.bias)
    if any(part.shape != (num_heads, size) for part in parts):
        raise ValueError(f"A norm of {list(norm.weight.shape)} cannot take {num_heads} x {size}.")
    bias = 0 if norm.bias is None else address(norm.bias, "the norm's bias")
    return address(norm.weight, "the norm's weight"), bias, norm.eps


def _rotation_parts(rotation: Rotation | None, num_tokens: int, size: int) -> tuple[int, int, int]:
    if rotation is None:
        return 0, 0, 0
    cos, sin = rotation
    half = cos.shape[-1]
    if cos.shape != (num_tokens, half) or sin.shape != cos.shape or 2 * half > size:
        raise ValueError(
            f"Rotations {list(cos.shape)} and {list(sin.shape)} do not fit {num_tokens} tokens "
            f"with heads of {size}."
        )
    return address(cos, "cos"), address(sin, "sin"), half
