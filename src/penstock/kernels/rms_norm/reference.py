"""Root-mean-square normalisation (https://arxiv.org/abs/1910.07467)."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale every row of x [..., D] to unit root-mean-square, then by weight; float32 inside.

    weight is [D], or [N, D] for x [T, N, D]: one norm for each of N heads.
    """
    h = x.float()
    h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)
    return h.to(x.dtype) * weight
