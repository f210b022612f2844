"""The affine map in C++: weights in panels that stream past a few rows held in registers.

The panels' layout, in `packed.h`, depends on the instruction set. int8 and int4 round and sum as
`kernels/quantization.py` says, bit for bit; floats are summed input after input.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address, empty
from penstock.kernels.norm.contract import Norm
from penstock.kernels.packed import Fact, fact
from penstock.kernels.quantization import GROUP_SIZE, Quantized

LAYOUT_VERSION = 1
"""To be raised with every change of what panels hold: packed weights outlive a process."""

ACTIVATIONS: Mapping[str | None, Any] = {
    None: _native.Activation.none,
    "gelu": _native.Activation.gelu,
    "gelu_fast": _native.Activation.gelu_tanh,
    "gelu_new": _native.Activation.gelu_tanh,
    "gelu_pytorch_tanh": _native.Activation.gelu_tanh,
    "quick_gelu": _native.Activation.quick_gelu,
    "relu": _native.Activation.relu,
    "silu": _native.Activation.silu,
    "swish": _native.Activation.silu,
}
_SCHEMES = ("float32", "bfloat16", "int8", "int4")
_SOURCES = {
    torch.float32: _native.Source.float32,
    torch.bfloat16: _native.Source.bfloat16,
    torch.float16: _native.Source.float16,
    torch.int8: _native.Source.int8,
}


@dataclass(frozen=True, slots=True)
class PanelLinear:
    """A packed weight: uint8 panels, and float32 scales and bias in the panels' order."""

    scheme: str
    isa: str
    gated: bool
    out_features: int
    in_features: int
    group_size: int
    panels: Tensor
    scales: Tensor | None
    bias: Tensor | None
    handle: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.group_size != GROUP_SIZE and (self.group_size < 1 or self.group_size % 64):
            raise ValueError(f"Groups of {self.group_size}: kernels take 32 or multiples of 64.")
        num_bytes, num_outputs = _native.packed_sizes(*self._shape())
        if self.panels.dtype is not torch.uint8 or self.panels.numel() != num_bytes:
            raise ValueError(f"{self.panels.numel()} bytes of panels where {num_bytes} are due.")
        for name, part in (("scales", self.scales), ("bias", self.bias)):
            if part is not None and part.numel() != num_outputs:
                raise ValueError(f"{part.numel()} {name} where {num_outputs} are due.")
        if (self.scales is None) == (self.scheme == "int8"):
            raise ValueError(f"Scales belong to int8, and to nothing else: {self.scheme}.")
        handle = _native.PackedLinear(
            *self._shape(),
            address(self.panels, "panels", torch.uint8),
            0 if self.scales is None else address(self.scales, "scales"),
            0 if self.bias is None else address(self.bias, "bias"),
        )
        object.__setattr__(self, "handle", handle)

    @property
    def num_outputs(self) -> int:
        return self.out_features // 2 if self.gated else self.out_features

    def parts(self) -> dict[str, Tensor]:
        """The panels, and scales and bias where there are any."""
        parts = {"panels": self.panels, "scales": self.scales, "bias": self.bias}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def facts(self) -> dict[str, Fact]:
        """Scheme and sizes."""
        return {
            "form": "panels",
            "scheme": self.scheme,
            "isa": self.isa,
            "gated": self.gated,
            "out_features": self.out_features,
            "in_features": self.in_features,
            "group_size": self.group_size,
        }

    def _shape(self) -> tuple[Any, ...]:
        scheme = getattr(_native.Scheme, self.scheme)
        return scheme, self.gated, self.out_features, self.in_features, self.group_size


def pack_linear(
    weight: Tensor | Quantized, bias: Tensor | None, scheme: str, *, gated: bool = False
) -> PanelLinear:
    """Pack a weight [out, in] of floats, or one that is rounded already, on all threads."""
    scales = None
    group_size = GROUP_SIZE
    if isinstance(weight, Quantized):
        weight, scales, given = weight
        group_size = given or GROUP_SIZE
    weight = weight.contiguous()
    out_features, in_features = weight.shape
    shape = (getattr(_native.Scheme, scheme), gated, out_features, in_features, group_size)
    num_bytes, num_outputs = _native.packed_sizes(*shape)
    packed = PanelLinear(
        scheme=scheme,
        isa=_native.isa(),
        gated=gated,
        out_features=out_features,
        in_features=in_features,
        group_size=group_size,
        panels=torch.empty(num_bytes, dtype=torch.uint8),
        scales=torch.empty(num_outputs) if scheme == "int8" else None,
        bias=None if bias is None else torch.empty(num_outputs),
    )
    _native.pack_linear(
        packed.handle,
        _SOURCES[weight.dtype],
        address(weight, "weight", weight.dtype),
        0 if scales is None else address(scales.contiguous(), "scales"),
        0 if bias is None else address(bias.float().contiguous(), "bias"),
    )
    return packed


def restore_linear(facts: Mapping[str, Fact], parts: Mapping[str, Tensor]) -> PanelLinear:
    """The linear whose facts and parts these are; the parts are kept, not copied. Raises ValueError
    if they do not belong together, or not to the instruction set in use.
    """
    form, scheme, isa = (fact(facts, name, str) for name in ("form", "scheme", "isa"))
    if form != "panels" or scheme not in _SCHEMES or isa != _native.isa():
        raise ValueError(f"{form} of {scheme} for {isa} are not panels for {_native.isa()}")
    out_features, in_features = fact(facts, "out_features", int), fact(facts, "in_features", int)
    group_size = fact(facts, "group_size", int)
    if min(out_features, in_features) < 1:
        raise ValueError(f"{out_features} x {in_features} is no matrix")
    if "panels" not in parts:
        raise ValueError("the part panels is missing")
    return PanelLinear(
        scheme=scheme,
        isa=isa,
        gated=fact(facts, "gated", bool),
        out_features=out_features,
        in_features=in_features,
        group_size=group_size,
        panels=parts["panels"],
        scales=parts.get("scales"),
        bias=parts.get("bias"),
    )


def linear(
    x: Tensor,
    packed: PanelLinear,
    *,
    norm: Norm | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """x [T, in] float32 through the packed weight, with all that surrounds it, in one call."""
    out = empty(x.shape[0], packed.num_outputs)
    if x.dim() != 2 or x.shape[1] != packed.in_features:
        raise ValueError(f"x is {list(x.shape)} where rows of {packed.in_features} are due.")
    if residual is not None and residual.shape != out.shape:
        raise ValueError(f"The residual is {list(residual.shape)}, the output {list(out.shape)}.")
    if norm is not None and norm.weight.shape != x.shape[1:]:
        raise ValueError(f"A norm of {list(norm.weight.shape)} cannot take {list(x.shape)}.")
    _native.linear(
        packed.handle,
        address(x, "x"),
        x.shape[0],
        0 if norm is None else address(norm.weight, "the norm's weight"),
        0 if norm is None or norm.bias is None else address(norm.bias, "the norm's bias"),
        0.0 if norm is None else norm.eps,
        ACTIVATIONS[activation],
        0 if residual is None else address(residual, "residual"),
        address(out, "out"),
    )
    return out
