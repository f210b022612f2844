"""Rotary position embedding (https://arxiv.org/abs/2104.09864), halves paired as in GPT-NeoX."""

import torch
from torch import Tensor


def rope(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads [T, N, D] in place, and return them; float32 inside.

    cos and sin are [T, 1, R] float32 with R <= D: element i < R/2 of a head is paired with element
    i + R/2, and elements from R on stay as they are. The first half of sin is negated, so that the
    rotation reads `heads * cos + swapped(heads) * sin`.
    """
    size = cos.shape[-1]
    turned = heads[..., :size]
    first, second = turned.float().chunk(2, dim=-1)
    swapped = torch.cat((second, first), dim=-1)
    turned.copy_((turned * cos).addcmul_(swapped, sin))
    return heads
