"""What surrounds a product that a library computes: rows normalised and rounded before it; bias,
activation, gate and residual after it. One pass each.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.activation.triton import activated
from penstock.kernels.kv_cache.triton import rounded
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.triton import (
    check_norm,
    load_normalised,
    norm_arguments,
    num_warps,
)
from penstock.kernels.quantization import FP8, FP8_MAX, INT8_MAX
from penstock.kernels.triton.target import power_of_two

_BLOCK = 1024


@triton.jit
def _round_rows(
    x, weight, bias, eps, out, scales, width,
    KIND: tl.constexpr, LARGEST: tl.constexpr, TO_INTEGERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)[None, :]
    y = load_normalised(x, weight, bias, row, width, 1, eps, KIND, BLOCK)
    values, scale = rounded(y, LARGEST, TO_INTEGERS)
    tl.store(scales + row + tl.arange(0, 1), scale)
    tl.store(out + row * width + columns, values.to(out.dtype.element_ty), mask=columns < width)


def round_rows(x: Tensor, norm: Norm | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [T, K], normalised where there is a norm, as int8 or `FP8` with a scale [T] a row."""
    if norm is not None:
        check_norm(x, norm)
    x = x.contiguous()
    num_rows, width = x.shape
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(num_rows, device=x.device)
    if num_rows:
        _round_rows[(num_rows,)](
            x,
            *norm_arguments(norm),
            0.0 if norm is None else norm.eps,
            values,
            scales,
            width,
            KIND=None if norm is None else norm.kind,
            LARGEST=FP8_MAX if dtype == FP8 else INT8_MAX,
            TO_INTEGERS=dtype == torch.int8,
            BLOCK=power_of_two(width),
            num_warps=num_warps(width),
        )
    return values, scales


@triton.jit
def _follow(
    y, bias, residual, out, width, GATED: tl.constexpr, ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = columns < width
    source = y + row * width * (2 if GATED else 1) + columns
    z = tl.load(source, mask=is_there, other=0.0).to(tl.float32)
    if bias is not None:
        z += tl.load(bias + columns, mask=is_there, other=0.0).to(tl.float32)
    z = activated(z, ACTIVATION)
    if GATED:
        up = tl.load(source + width, mask=is_there, other=0.0).to(tl.float32)
        if bias is not None:
            up += tl.load(bias + width + columns, mask=is_there, other=0.0).to(tl.float32)
        z *= up
    if residual is not None:
        z += tl.load(residual + row * width + columns, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out + row * width + columns, z.to(out.dtype.element_ty), mask=is_there)


def follow(
    y: Tensor,
    *,
    bias: Tensor | None,
    gated: bool,
    activation: str | None,
    residual: Tensor | None,
) -> Tensor:
    """A product y [T, N] with its bias [N] added, then the activation, the gate and the residual:
    [T, N], or [T, N / 2] of a gated one.
    """
    width = y.shape[1] // (2 if gated else 1)
    out = torch.empty(len(y), width, dtype=y.dtype, device=y.device)
    if out.numel():
        block = min(_BLOCK, power_of_two(width))
        _follow[(len(y), triton.cdiv(width, block))](
            y, bias, residual, out, width, GATED=gated, ACTIVATION=activation, BLOCK=block
        )
    return out
