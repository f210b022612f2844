"""Norms on a GPU: a row is read once, and held in registers between its sums and its result."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.triton.target import power_of_two


@triton.jit
def normalise(x, weight, bias, is_there, width, eps, CENTRED: tl.constexpr):
    """Rows x [N, BLOCK] float32 of `width` elements, the rest zeros, as a norm makes them."""
    if CENTRED:
        mean = tl.sum(x, axis=1) / width
        x = tl.where(is_there, x - mean[:, None], 0.0)
    square = tl.sum(x * x, axis=1) / width
    y = x * (1.0 / tl.sqrt(square + eps))[:, None] * weight
    if CENTRED:
        y += bias
    return y


@triton.jit
def load_normalised(
    x, weight, bias, row, width, num_norms, eps, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    """Row number `row` of x [T * N, width], in float32 [1, BLOCK], normalised with row % N of the
    weights [N, width]. KIND is None for a row as it is, or a norm's kind.
    """
    columns = tl.arange(0, BLOCK)[None, :]
    is_there = columns < width
    y = tl.load(x + row * width + columns, mask=is_there, other=0.0).to(tl.float32)
    if KIND is not None:
        place = row % num_norms * width + columns
        scale = tl.load(weight + place, mask=is_there, other=0.0).to(tl.float32)
        shift = scale
        if KIND == "layer":
            shift = tl.load(bias + place, mask=is_there, other=0.0).to(tl.float32)
        y = normalise(y, scale, shift, is_there, width, eps, KIND == "layer")
    return y


@triton.jit
def _norm(x, weight, bias, out, width, num_norms, eps, KIND: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)[None, :]
    y = load_normalised(x, weight, bias, row, width, num_norms, eps, KIND, BLOCK)
    tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=columns < width)


def norm(x: Tensor, weights: Norm) -> Tensor:
    """Normalise every row of x [..., D] as weights say: same shape and dtype, float32 inside,
    rounded once.
    """
    check_norm(x, weights)
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    if x.numel():
        _norm[(x.numel() // width,)](
            x,
            *norm_arguments(weights),
            out,
            width,
            weights.weight.numel() // width,
            weights.eps,
            KIND=weights.kind,
            BLOCK=power_of_two(width),
            num_warps=num_warps(width),
        )
    return out


def check_norm(x: Tensor, weights: Norm) -> None:
    """Raises ValueError if the weights are not for rows of x [..., D]."""
    expected = x.shape[-weights.weight.dim() :]
    parts = (weights.weight,) if weights.bias is None else (weights.weight, weights.bias)
    if any(part.shape != expected for part in parts):
        raise ValueError(f"A norm of {list(weights.weight.shape)} cannot take {list(x.shape)}.")


def norm_arguments(weights: Norm | None) -> tuple[Tensor | None, Tensor | None]:
    """A norm's tensors as kernels take them."""
    if weights is None:
        return None, None
    bias = weights.bias
    return weights.weight.contiguous(), None if bias is None else bias.contiguous()


def num_warps(width: int) -> int:
    """Warps that share a row: about eight elements for each of their threads."""
    return min(16, max(1, power_of_two(width) // 256))
