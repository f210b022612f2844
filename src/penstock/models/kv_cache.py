"""The paged KV cache: keys and values of every layer, in blocks that any sequence may hold."""

import math

import numpy as np
import torch
from torch import Tensor

from penstock.models.spec import DecoderSpec


class KVCache:
    """Keys and values per layer, each [num_blocks, block_size, K, D].

    It begins as zeros, so that a slot nobody wrote holds a number and never a NaN.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_blocks, block_size, spec.num_kv_heads, spec.head_dim)
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._storage = _zeros((spec.num_layers, 2, *shape), dtype, device)
        self.keys: list[Tensor] = list(self._storage[:, 0])
        self.values: list[Tensor] = list(self._storage[:, 1])

    @staticmethod
    def block_bytes(spec: DecoderSpec, block_size: int, dtype: torch.dtype) -> int:
        """What one block costs, all layers, keys and values."""
        elements = 2 * spec.num_layers * block_size * spec.num_kv_heads * spec.head_dim
        return elements * dtype.itemsize

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy blocks, (source, destination), in all layers. All sources are read before any is
        overwritten.
        """
        if copies:
            sources, destinations = torch.tensor(copies, device=self._storage.device).unbind(1)
            self._storage[:, :, destinations] = self._storage[:, :, sources]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU, of memory that the system provides page by page when it is first written:
    a cache sized for the busiest hour costs nothing before that.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    untouched = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(untouched).view(dtype).view(shape)
