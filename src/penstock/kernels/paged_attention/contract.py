"""What every backend's attention is told once per layer kind, beside the layout it is told once per
step.
"""

from dataclasses import dataclass

from torch import Tensor

FLASHINFER_HEAD_DIMS = (64, 128, 256)
"""Sizes of heads for which FlashInfer has kernels on every GPU of ours."""
FLASHINFER_DTYPES = ("bfloat16", "float16")
"""Types in which it takes queries, keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """The facts of an attention that stay the same from step to step.

    Query head h reads key-value head h // (num_heads // num_kv_heads).
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    """What the product of a query and a key is multiplied by."""
    window: int | None = None
    """A token sees itself and the window - 1 tokens before it; None means all of them."""
    key_bias: Tensor | None = None
    """[H, max_positions] float32, added to head h's scaled score of the key at each position."""
