"""The affine map in torch: a packed weight is a matrix of floats, or of integers with scales."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.activation.reference import activate, activate_gate
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.reference import norm as normalise
from penstock.kernels.packed import Fact, Packing, fact, part
from penstock.kernels.quantization import (
    FP8,
    Matrix,
    Quantized,
    fp8_linear,
    int4_linear,
    int8_linear,
    quantize_groups,
    quantize_rows,
    quantize_rows_to_fp8,
)

PACKING = Packing("any", 1)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_ROUNDED = {
    "int8": (quantize_rows, int8_linear),
    "int4": (quantize_rows, int4_linear),
    "fp8": (quantize_rows_to_fp8, fp8_linear),
}


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A matrix of floats [out, in] and, where there is one, a bias [out]."""

    weight: Tensor
    bias: Tensor | None
    gated: bool = False

    def parts(self) -> dict[str, Tensor]:
        """The weight, and the bias where there is one."""
        return {"weight": self.weight} | _bias(self.bias)

    def facts(self) -> dict[str, Fact]:
        """Form and sizes."""
        return {"form": "dense"} | _sizes(self.weight, self.gated)


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """A matrix of integers [out, in] with its scales and, where there is one, a bias [out]."""

    weight: Quantized
    bias: Tensor | None
    gated: bool = False

    def parts(self) -> dict[str, Tensor]:
        """The integers, their scales, and the bias where there is one."""
        return {"values": self.weight.values, "scale": self.weight.scale} | _bias(self.bias)

    def facts(self) -> dict[str, Fact]:
        """Form and sizes; a group size of 0 means one scale for each output."""
        form: dict[str, Fact] = {"form": "quantized", "group_size": self.weight.group_size or 0}
        return form | _sizes(self.weight.values, self.gated)


def pack_linear(
    weight: Matrix, bias: Tensor | None, scheme: str, *, gated: bool = False
) -> DenseLinear | QuantizedLinear:
    """Make what `linear` takes of a weight [out, in] and a bias [out] or None, both float. A weight
    that has been rounded already stays as it is, whatever the scheme.

    scheme names how the weight is kept: float32, bfloat16 or float16; int8 or fp8, rounded row by
    row; or int4, rounded group by group. With integers, `linear` rounds what it multiplies to int8
    row by row, and sums integers exactly, as `kernels/quantization.py` says; with fp8 it rounds to
    fp8. A backend may leave what meets int4 as it is, which is nearer to what is meant. The rows of
    a gated linear are a gate's, then as many of the values it gates. The weight is copied: what
    comes from a mapped file lies at any address, and a product's last bit depends on that.
    """
    if isinstance(weight, Quantized):
        return QuantizedLinear(weight, bias, gated)
    if scheme == "int8":
        return QuantizedLinear(quantize_rows(weight), bias, gated)
    if scheme == "fp8":
        return QuantizedLinear(quantize_rows_to_fp8(weight), bias, gated)
    if scheme == "int4":
        return QuantizedLinear(quantize_groups(weight), bias, gated)
    return DenseLinear(weight.to(getattr(torch, scheme), copy=True), bias, gated)


def restore_linear(
    facts: Mapping[str, Fact], parts: Mapping[str, Tensor]
) -> DenseLinear | QuantizedLinear:
    """The linear whose facts and parts these are; the parts are kept, not copied. Raises ValueError
    if they do not belong together.
    """
    rows, columns = fact(facts, "out_features", int), fact(facts, "in_features", int)
    bias = part(parts, "bias", (rows,), *_FLOATS) if "bias" in parts else None
    gated = fact(facts, "gated", bool)
    match fact(facts, "form", str):
        case "dense":
            return DenseLinear(part(parts, "weight", (rows, columns), *_FLOATS), bias, gated)
        case "quantized":
            size = fact(facts, "group_size", int)
            if size < 0:
                raise ValueError(f"there are no groups of {size} inputs")
            shape = (rows, -(-columns // size)) if size else (rows,)
            values = part(parts, "values", (rows, columns), torch.int8, FP8)
            scale = part(parts, "scale", shape, torch.float32)
            return QuantizedLinear(Quantized(values, scale, size or None), bias, gated)
        case form:
            raise ValueError(f"there is no form {form!r} of a linear")


def _sizes(weight: Tensor, gated: bool) -> dict[str, Fact]:
    return {"out_features": weight.shape[0], "in_features": weight.shape[1], "gated": gated}


def _bias(bias: Tensor | None) -> dict[str, Tensor]:
    return {} if bias is None else {"bias": bias}


def linear(
    x: Tensor,
    packed: DenseLinear | QuantizedLinear,
    *,
    norm: Norm | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """x [T, in] times the packed weight, plus its bias: [T, out], in x's dtype.

    Around it, what a faster backend does in the same pass: x is normalised first where there is a
    norm; the activation follows, of the gate alone in a gated linear, whose output is then [T, out
    / 2]; a residual of the output's shape is added last.
    """
    h = x if norm is None else normalise(x, norm)
    y = _affine(h, packed)
    if activation is not None:
        y = activate_gate(y, activation) if packed.gated else activate(y, activation)
    return y if residual is None else residual + y


def _affine(x: Tensor, packed: DenseLinear | QuantizedLinear) -> Tensor:
    if isinstance(packed, DenseLinear):
        return functional.linear(x, packed.weight.to(x.dtype), packed.bias)
    round_rows, multiply = _ROUNDED[packed.weight.scheme]
    y = multiply(round_rows(x), packed.weight).to(x.dtype)
    return y if packed.bias is None else y + packed.bias
