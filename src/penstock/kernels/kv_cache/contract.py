"""What a backend is told of the cache it lays out, and what it says of its layout."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

KV_DTYPES = ("float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class KVShape:
    """One layer's cache: its blocks hold keys and values of `block_size` tokens each.

    dtype is one of `KV_DTYPES`. In int8, every head of every token has a scale of its own, for its
    key and for its value: the largest magnitude becomes 127.
    """

    num_kv_heads: int
    head_dim: int
    block_size: int
    dtype: str


class Part(NamedTuple):
    """A tensor of a layer's cache: the shape of one block's share of it, and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype
