"""What every backend's attention is told once per layer kind, beside the layout it is told once per
step.
"""

from dataclasses import dataclass

import torch
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
    soft_cap: float | None = None
    """Scaled scores become soft_cap * tanh(score / soft_cap), before any bias is added
    (https://arxiv.org/abs/2408.00118). Above 0; None leaves them as they are.
    """
    window: int | None = None
    """A token sees itself and the window - 1 tokens before it; None means all of them."""
    key_bias: Tensor | None = None
    """[H, max_positions] float32, added to head h's scaled score of the key at each position."""

    def __post_init__(self) -> None:
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"A soft cap is above 0, not {self.soft_cap}; None is no cap.")


def check_sinks(sinks: Tensor | None, shape: AttentionShape) -> None:
    """Raises ValueError for sinks that are not one for each query head, float32 and dense. They are
    told with each call: every layer has learned its own, and layers of a shape share a plan.
    """
    if sinks is None:
        return
    fits = sinks.shape == (shape.num_heads,) and sinks.dtype is torch.float32
    if not fits or not sinks.is_contiguous():
        raise ValueError(
            f"Sinks {list(sinks.shape)} of {sinks.dtype} with strides {list(sinks.stride())} are "
            f"not one dense float32 for each of {shape.num_heads} heads."
        )
