"""Norms in C++: one pass for the sums, one for the result, rows side by side on all threads."""

from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address, empty
from penstock.kernels.norm.contract import Norm


def norm(x: Tensor, weights: Norm) -> Tensor:
    """Normalise every row of x [..., D], float32, as weights say: a new tensor."""
    x = x.contiguous()
    width = x.shape[-1]
    expected = x.shape[-weights.weight.dim() :]
    parts = (weights.weight,) if weights.bias is None else (weights.weight, weights.bias)
    if any(part.shape != expected for part in parts):
        raise ValueError(f"A norm of {list(weights.weight.shape)} cannot take {list(x.shape)}.")
    out = empty(*x.shape)
    _native.norm(
        address(x, "x"),
        address(weights.weight, "the norm's weight"),
        0 if weights.bias is None else address(weights.bias, "the norm's bias"),
        address(out, "out"),
        x.numel() // width,
        width,
        weights.weight.numel() // width,
        weights.eps,
    )
    return out
