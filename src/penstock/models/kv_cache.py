"""The paged KV cache: keys and values of every layer, in blocks that any sequence may hold."""

import math

import numpy as np
import torch
from torch import Tensor

from penstock.kernels.kv_cache.contract import KVShape
from penstock.kernels.ops import LayerKV, Ops
from penstock.kernels.quantization import FP8
from penstock.models.spec import DecoderSpec

CACHE_LINE_BYTES = 64


class KVCache:
    """Keys and values per layer, laid out as the backend likes them, block by block.

    It begins as zeros, so that a slot nobody wrote holds a number and never a NaN.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        num_blocks: int,
        block_size: int,
        dtype: str,
        *,
        ops: Ops,
        device: torch.device,
    ) -> None:
        """dtype is one of `KV_DTYPES`."""
        shape = kv_shape(spec, block_size, dtype)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._parts = {
            name: _zeros((spec.num_layers, num_blocks, *part.shape), part.dtype, device)
            for name, part in ops.kv_parts(shape).items()
        }
        self.layers: list[LayerKV] = [
            ops.layer_kv(shape, {name: part[layer] for name, part in self._parts.items()})
            for layer in range(spec.num_layers)
        ]

    def copy_blocks(self, sources: Tensor, destinations: Tensor) -> None:
        """Copy blocks, int64 [N] each, in all layers. All sources are read before any is
        overwritten.
        """
        for part in self._parts.values():
            # of floats in eight bits torch copies the bytes, but not the numbers
            memory = part.view(torch.uint8) if part.dtype == FP8 else part
            memory[:, destinations] = memory[:, sources]


def kv_shape(spec: DecoderSpec, block_size: int, dtype: str) -> KVShape:
    """The shape of each layer's cache."""
    return KVShape(
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        block_size=block_size,
        dtype=dtype,
    )


def block_bytes(spec: DecoderSpec, block_size: int, dtype: str, ops: Ops) -> int:
    """What one block costs, all layers, keys and values and what belongs to them."""
    parts = ops.kv_parts(kv_shape(spec, block_size, dtype)).values()
    return spec.num_layers * sum(math.prod(part.shape) * part.dtype.itemsize for part in parts)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU, of memory that the system provides page by page when it is first written:
    a cache sized for the busiest hour costs nothing before that. It begins with a cache line, so
    that no vector of a kernel lies in two.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * dtype.itemsize
    untouched = np.zeros(num_bytes + CACHE_LINE_BYTES, dtype=np.uint8)
    start = -untouched.ctypes.data % CACHE_LINE_BYTES
    return torch.from_numpy(untouched[start : start + num_bytes]).view(dtype).view(shape)
