"""Numbers in 8 and 4 bits: how weights, activations, keys and values are rounded, and multiplied.

All schemes are symmetric: an integer, or a float of 8 bits, stands for itself times a scale, and
zero stays zero. What is written here in torch is what the reference computes, what every backend
packs, and what kernels are compared with. T tokens, N outputs, K inputs, G groups of inputs.
"""

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

GROUP_SIZE = 32
"""Neighbouring inputs that share a scale in int4, unless a checkpoint says otherwise."""
INT8_MAX = 127
INT4_MIN, INT4_MAX = -8, 7
FP8 = torch.float8_e4m3fn
"""Eight bits of float: a sign, four for the exponent, three for the mantissa
(https://arxiv.org/abs/2209.05433).
"""
FP8_MAX = 448
_EXACT_IN_FLOAT32 = 1024
"""So many products of two int8 add up to an integer below 2**24, which float32 holds exactly."""


class Quantized(NamedTuple):
    """Small numbers, and the scales that bring them back."""

    values: Tensor
    """int8 [..., D], those of 4 bits being -8..7; or `FP8`."""
    scale: Tensor
    """float32, one for each row [...], or for each group of a row [..., G]."""
    group_size: int | None = None
    """How many neighbours in a row share a scale; None: all of them."""

    @property
    def scheme(self) -> str:
        """int8, int4 or fp8, as `pack_linear` calls it."""
        if self.values.dtype == FP8:
            return "fp8"
        return "int8" if self.group_size is None else "int4"


Matrix: TypeAlias = Tensor | Quantized
"""A weight of floats, or one that has been rounded already."""


def quantize_rows(x: Tensor) -> Quantized:
    """x [..., D] as int8 in -127..127 [..., D], with one scale [...] a row: its largest magnitude
    over 127.

    A row is an output's weights, a token's activations, or one head of a key or a value. Quotients
    go to the nearest integer, halves to the even one. A row of zeros has scale 0, and so has one
    whose scale would be too small for a normal float32; its integers are zeros then.
    """
    x = x.float()
    scale = x.abs().amax(dim=-1) / INT8_MAX
    scale = _flushed(scale)
    values = torch.round(x * _inverse(scale)[..., None]).clamp_(-INT8_MAX, INT8_MAX)
    return Quantized(values.to(torch.int8), scale)


def quantize_rows_to_fp8(x: Tensor) -> Quantized:
    """x [..., D] as `FP8` [..., D], with one scale [...] a row: its largest magnitude over 448.

    Small numbers keep their relative precision, which int8 rounds away; large ones have less of it.
    Zeros are as in `quantize_rows`.
    """
    x = x.float()
    scale = _flushed(x.abs().amax(dim=-1) / FP8_MAX)
    values = (x * _inverse(scale)[..., None]).clamp_(-FP8_MAX, FP8_MAX)
    return Quantized(values.to(FP8), scale)


def quantize_groups(weight: Tensor, group_size: int = GROUP_SIZE) -> Quantized:
    """weight [N, K] in 4 bits: int8 in -8..7 [N, K], with a scale [N, G] for every group_size
    neighbouring inputs; the last group may be smaller.

    The value of largest magnitude in a group becomes -8, so a scale may be negative: of the
    sixteen integers none is wasted. Scales are numbers that bfloat16 holds exactly, and the
    integers are chosen for those.
    """
    groups = _in_groups(weight.float(), group_size)
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True)).squeeze(-1)
    scale = _flushed((largest / INT4_MIN).bfloat16().float())
    values = torch.round(groups * _inverse(scale)[..., None]).clamp_(INT4_MIN, INT4_MAX)
    values = values.to(torch.int8).flatten(1)[:, : weight.shape[1]]
    return Quantized(values, scale, group_size)


def dequantize(weight: Quantized) -> Tensor:
    """The matrix [N, K] float32 that a quantized weight stands for."""
    values, scale, group_size = weight
    if group_size is None:
        return values.float() * scale[:, None]
    return values * scale.repeat_interleave(group_size, dim=1)[:, : values.shape[1]]


def floats(weight: Matrix) -> Tensor:
    """The numbers of a weight, whatever form it has."""
    return dequantize(weight) if isinstance(weight, Quantized) else weight


def int8_linear(x: Quantized, weight: Quantized) -> Tensor:
    """Rows x [T, K] times a weight with a scale for every output: [T, N] float32.

    The integers' products are summed exactly; the sum becomes a float, is multiplied by the
    output's scale, then by the token's.
    """
    return _integer_product(x.values, weight.values).float() * weight.scale * x.scale[:, None]


def fp8_linear(x: Quantized, weight: Quantized) -> Tensor:
    """Rows x [T, K] times a weight with a scale for every output, both `FP8`: [T, N] float32.

    Products and sums are float32; the sum is multiplied by the output's scale, then by the token's.
    """
    return (x.values.float() @ weight.values.float().T) * weight.scale * x.scale[:, None]


def int4_linear(x: Quantized, weight: Quantized) -> Tensor:
    """Rows x [T, K] times a weight with a scale for every group of inputs: [T, N] float32.

    Within a group the integers' products are summed exactly; that sum becomes a float and is
    multiplied by the group's scale. The groups are added in order, and the total is multiplied by
    the token's scale.
    """
    assert weight.group_size is not None
    total = torch.zeros(len(x.values), len(weight.values), device=x.values.device)
    parts = zip(
        torch.split(x.values, weight.group_size, dim=1),
        torch.split(weight.values, weight.group_size, dim=1),
        weight.scale.unbind(dim=1),
        strict=True,
    )
    for x_part, weight_part, scale in parts:
        total += _integer_product(x_part, weight_part).float() * scale
    return total * x.scale[:, None]


def _integer_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [T, K] int8 times weight [N, K] int8, exactly: [T, N] int32.

    Float products are far faster than torch's integer ones, and exact while sums are small.
    """
    total = torch.zeros(len(x), len(weight), dtype=torch.int32, device=x.device)
    for x_part, weight_part in zip(
        torch.split(x, _EXACT_IN_FLOAT32, dim=1),
        torch.split(weight, _EXACT_IN_FLOAT32, dim=1),
        strict=True,
    ):
        total += (x_part.float() @ weight_part.float().T).int()
    return total


def _in_groups(weight: Tensor, group_size: int) -> Tensor:
    """weight [N, K] as [N, G, group_size], zeros after the last input."""
    padded = functional.pad(weight, (0, -weight.shape[1] % group_size))
    return padded.view(len(weight), -1, group_size)


def _flushed(scale: Tensor) -> Tensor:
    """Scales too small to be divided by, as zeros."""
    return scale.masked_fill(scale.abs() < torch.finfo(torch.float32).tiny, 0.0)


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 for a scale of 0."""
    return torch.where(scale == 0, 0.0, 1 / scale)
