"""The paged cache as the CPU's kernels like it: in tiles of 16 tokens, every head by itself, its
keys transposed.

The scores of 16 keys are then a sum of vectors, without sums across lanes; and what one work item
of attention reads lies in one piece.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address
from penstock.kernels.kv_cache.contract import CPU_KV_DTYPES, KVShape, Part


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's cache: the kernels' view of it, and the tensors that keep its memory alive."""

    shape: KVShape
    native: Any
    parts: Mapping[str, Tensor]


def kv_parts(shape: KVShape) -> dict[str, Part]:
    """The tensors that `layer_kv` wants. Raises ValueError for a block size that is no multiple of
    16, and for a type that is not one of `CPU_KV_DTYPES`.
    """
    tile = _native.TILE_TOKENS
    if shape.block_size % tile or shape.block_size < tile:
        raise ValueError(
            f"The CPU's kernels keep blocks of {tile} tokens, or a multiple of that, not of "
            f"{shape.block_size}: choose such a block size."
        )
    if shape.dtype not in CPU_KV_DTYPES:
        raise ValueError(f"No cache of {shape.dtype}; there are {', '.join(CPU_KV_DTYPES)}.")
    tiles, heads, size = shape.block_size // tile, shape.num_kv_heads, shape.head_dim
    parts = {
        "keys": Part((tiles, heads, size, tile), shape.element),
        "values": Part((tiles, heads, tile, size), shape.element),
    }
    if shape.is_scaled:
        scales = Part((tiles, heads, tile), torch.float32)
        parts |= {"key_scales": scales, "value_scales": scales}
    return parts


def layer_kv(shape: KVShape, parts: Mapping[str, Tensor]) -> LayerKV:
    """The kernels' view of a layer's cache. Raises ValueError for tensors that are not as
    `kv_parts` asks; the kernels trust them from here on.
    """
    wanted = kv_parts(shape)
    num_blocks = len(parts["keys"])
    addresses = dict.fromkeys(("keys", "values", "key_scales", "value_scales"), 0)
    for name, part in wanted.items():
        if parts[name].shape != (num_blocks, *part.shape):
            raise ValueError(
                f"The cache's {name} are {list(parts[name].shape)}; "
                f"{num_blocks} blocks take {[num_blocks, *part.shape]}."
            )
        addresses[name] = address(parts[name], name, part.dtype)
    native = _native.LayerKV(
        *addresses.values(),
        num_blocks * (shape.block_size // _native.TILE_TOKENS),
        shape.num_kv_heads,
        shape.head_dim,
        shape.dtype,
    )
    return LayerKV(shape, native, dict(parts))
