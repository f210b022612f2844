"""The affine map on a GPU: floats through the vendor's library, everything else through a kernel.

int8 and fp8 round what they multiply token by token, in one pass with the norm before it; fp8 goes
through torch's scaled product where that exists. Weights of four bits meet activations as they are.
Where results are to be deterministic, the kernel computes everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.linear.triton_around import follow, round_rows
from penstock.kernels.linear.triton_matrix import (
    FLOATS,
    PackedMatrix,
    pack_matrix,
    restore_matrix,
)
from penstock.kernels.linear.triton_product import product
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.triton import norm as normalise
from penstock.kernels.packed import Fact, Packing, fact, part
from penstock.kernels.quantization import Matrix

PACKING = Packing("triton", 1)
_MULTIPLE = 16
"""What torch's scaled product wants sizes to be multiples of."""


@dataclass(frozen=True, slots=True)
class TritonLinear:
    """A packed weight and, where there is one, a bias [N]."""

    weight: PackedMatrix
    bias: Tensor | None
    gated: bool

    @property
    def num_outputs(self) -> int:
        return self.weight.out_features // (2 if self.gated else 1)

    def parts(self) -> dict[str, Tensor]:
        """The weight's tensors, and the bias where there is one."""
        return self.weight.parts() | ({} if self.bias is None else {"bias": self.bias})

    def facts(self) -> dict[str, Fact]:
        """Form and sizes."""
        sizes: dict[str, Fact] = {
            "out_features": self.weight.out_features,
            "in_features": self.weight.in_features,
            "gated": self.gated,
        }
        return self.weight.facts() | sizes


def pack_linear(
    weight: Matrix, bias: Tensor | None, scheme: str, *, gated: bool = False
) -> TritonLinear:
    """Pack a weight [out, in] of floats, or one that is rounded already."""
    return TritonLinear(
        pack_matrix(weight, scheme), None if bias is None else bias.contiguous(), gated
    )


def restore_linear(facts: Mapping[str, Fact], parts: Mapping[str, Tensor]) -> TritonLinear:
    """The linear whose facts and parts these are; the parts are kept, not copied. Raises ValueError
    if they do not belong together.
    """
    shape = fact(facts, "out_features", int), fact(facts, "in_features", int)
    bias = part(parts, "bias", shape[:1], *FLOATS.values()) if "bias" in parts else None
    return TritonLinear(restore_matrix(facts, parts, "", shape), bias, fact(facts, "gated", bool))


def linear(
    x: Tensor,
    packed: TritonLinear,
    *,
    norm: Norm | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
    deterministic: bool = False,
) -> Tensor:
    """x [T, in] through the packed weight with all that surrounds it, in x's dtype. With
    deterministic, a row's bits do not depend on how many there are: libraries choose by that.
    """
    weight = packed.weight
    _check(x, packed, residual)
    residual = None if residual is None else residual.contiguous()
    if weight.scheme in ("int8", "fp8"):
        h, scale = round_rows(x, norm, weight.dtype)
        if not deterministic and _has_scaled_product(weight, x):
            return _through_scaled_product(h, scale, packed, x.dtype, activation, residual)
    else:
        h, scale = x.contiguous() if norm is None else normalise(x, norm), None
        if not deterministic and weight.scheme in FLOATS:
            return _through_library(h, packed, activation, residual)
    return product(
        h,
        scale,
        weight,
        dtype=x.dtype,
        bias=packed.bias,
        gated=packed.gated,
        activation=activation,
        residual=residual,
        deterministic=deterministic,
    )


def _check(x: Tensor, packed: TritonLinear, residual: Tensor | None) -> None:
    """Raises ValueError for what does not fit the weight."""
    if x.dim() != 2 or x.shape[1] != packed.weight.in_features:
        raise ValueError(f"x is {list(x.shape)} where rows of {packed.weight.in_features} are due.")
    shape = (len(x), packed.num_outputs)
    if residual is not None and residual.shape != shape:
        raise ValueError(f"The residual is {list(residual.shape)}, the output {list(shape)}.")


def _through_library(
    x: Tensor, packed: TritonLinear, activation: str | None, residual: Tensor | None
) -> Tensor:
    """Floats; what the library cannot do in the same pass follows in one more."""
    weight, bias = packed.weight.values.to(x.dtype), packed.bias
    if activation is None and not packed.gated and residual is not None and bias is None:
        return torch.addmm(residual, x, weight.T)
    y = functional.linear(x, weight, None if bias is None else bias.to(x.dtype))
    if activation is None and residual is None:
        return y
    return follow(y, bias=None, gated=packed.gated, activation=activation, residual=residual)


def _through_scaled_product(
    x: Tensor,
    scale: Tensor,
    packed: TritonLinear,
    dtype: torch.dtype,
    activation: str | None,
    residual: Tensor | None,
) -> Tensor:
    assert packed.weight.scale is not None
    y = torch._scaled_mm(
        x,
        packed.weight.values.T,
        scale_a=scale[:, None],
        scale_b=packed.weight.scale[None, :],
        out_dtype=dtype,
    )
    if packed.bias is None and activation is None and residual is None:
        return y
    return follow(y, bias=packed.bias, gated=packed.gated, activation=activation, residual=residual)


def _has_scaled_product(weight: PackedMatrix, x: Tensor) -> bool:
    """torch multiplies such a weight with rows like these, a scale for each."""
    sizes = weight.in_features, weight.out_features
    return (
        weight.scheme == "fp8"
        and x.dtype == torch.bfloat16
        and not any(size % _MULTIPLE for size in sizes)
        and len(x) > 0
        and _capability(x.device) >= (9, 0)
    )


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
