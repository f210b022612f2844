"""Norms in torch."""

import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.norm.contract import Norm


def norm(x: Tensor, weights: Norm) -> Tensor:
    """Normalise every row of x [..., D] as weights say: same shape and dtype, float32 inside."""
    h = x.float()
    if weights.kind == "layer":
        assert weights.bias is not None
        h = functional.layer_norm(h, x.shape[-1:], eps=weights.eps)
        return h.mul_(weights.weight).add_(weights.bias).to(x.dtype)
    h = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + weights.eps)
    return h.to(x.dtype) * weights.weight.to(x.dtype)
