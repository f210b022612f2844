"""A layer's cache as any backend lays it out, filled through its operations alone."""

import torch
from torch import Tensor

from penstock.kernels.kv_cache.contract import KVShape
from penstock.kernels.ops import LayerKV, Ops

BLOCK_SIZE = 16


def empty_cache(
    ops: Ops,
    num_blocks: int,
    num_kv_heads: int,
    head_dim: int,
    *,
    block_size: int = BLOCK_SIZE,
    dtype: str = "float32",
) -> LayerKV:
    shape = KVShape(
        num_kv_heads=num_kv_heads, head_dim=head_dim, block_size=block_size, dtype=dtype
    )
    parts = {
        name: torch.zeros(num_blocks, *part.shape, dtype=part.dtype)
        for name, part in ops.kv_parts(shape).items()
    }
    return ops.layer_kv(shape, parts)


def filled_cache(ops: Ops, keys: Tensor, values: Tensor, *, dtype: str = "float32") -> LayerKV:
    """A cache that holds keys and values [num_blocks, block_size, K, D] in all of its slots."""
    num_blocks, block_size, num_kv_heads, size = keys.shape
    cache = empty_cache(ops, num_blocks, num_kv_heads, size, block_size=block_size, dtype=dtype)
    heads = torch.cat((keys, keys, values), dim=2).flatten(0, 1).float()
    ops.rope_write_kv(heads, None, None, cache, torch.arange(num_blocks * block_size))
    return cache
