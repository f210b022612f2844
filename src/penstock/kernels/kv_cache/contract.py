"""What a backend is told of the cache it lays out, and what it says of its layout."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from penstock.kernels.quantization import FP8

KV_DTYPES = ("float32", "bfloat16", "float16", "int8", "fp8")
"""How keys and values can be kept."""
CPU_KV_DTYPES = ("float32", "bfloat16", "float16", "int8")
"""Those of them that the kernels for CPUs know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KVShape:
    """One layer's cache: its blocks hold keys and values of `block_size` tokens each.

    dtype is one of `KV_DTYPES`. In int8 and fp8, every head of every token has a scale of its own,
    for its key and for its value: the largest magnitude becomes 127, or 448.
    """

    num_kv_heads: int
    head_dim: int
    block_size: int
    dtype: str

    @property
    def element(self) -> torch.dtype:
        """The type of keys and values in memory."""
        element: torch.dtype = FP8 if self.dtype == "fp8" else getattr(torch, self.dtype)
        return element

    @property
    def is_scaled(self) -> bool:
        """Keys and values have scales beside them."""
        return self.dtype in ("int8", "fp8")


class Part(NamedTuple):
    """A tensor of a layer's cache: the shape of one block's share of it, and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype
