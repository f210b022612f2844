"""Weights in memory as kernels in Triton read them, alone or one matrix for each of E experts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.kernels.packed import Fact, fact, part
from penstock.kernels.quantization import (
    FP8,
    INT4_MIN,
    Matrix,
    Quantized,
    quantize_groups,
    quantize_rows,
    quantize_rows_to_fp8,
)

FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A weight [N, K], or a stack of them [E, N, K].

    values are floats, int8 or `FP8`. In int4 they are bytes [..., N, G * group_size / 2]: byte j of
    a group has the group's value j in its low four bits and value j + group_size / 2 in its high
    ones, both plus 8, so that a run of bytes holds two runs of inputs. scale is [..., N] of int8
    and fp8, [..., N, G] of int4, None of floats; float32, or bfloat16 where that loses nothing.
    """

    scheme: str
    in_features: int
    values: Tensor
    scale: Tensor | None = None
    group_size: int = 0

    @property
    def out_features(self) -> int:
        return self.values.shape[-2]

    @property
    def num_groups(self) -> int:
        """Of an output's inputs; 1 where all share a scale, or there is none."""
        return self.scale.shape[-1] if self.scale is not None and self.group_size else 1

    @property
    def dtype(self) -> torch.dtype:
        """Of the values; those of int4 are bytes."""
        return self.values.dtype

    def parts(self, prefix: str = "") -> dict[str, Tensor]:
        """Its tensors, named with a prefix."""
        scale = {} if self.scale is None else {f"{prefix}scale": self.scale}
        return {f"{prefix}values": self.values} | scale

    def facts(self) -> dict[str, Fact]:
        """What else is to be known, sizes excepted."""
        return {"form": "rows", "scheme": self.scheme, "group_size": self.group_size}


def pack_matrix(weight: Matrix, scheme: str) -> PackedMatrix:
    """A weight [N, K] of floats, or one that is rounded already, in the scheme's form: a copy."""
    if not isinstance(weight, Quantized):
        if scheme in FLOATS:
            kept = weight.to(FLOATS[scheme], copy=True).contiguous()
            return PackedMatrix(scheme, weight.shape[1], kept)
        weight = _rounded(weight, scheme)
    values, scale, group_size = weight
    if group_size is None:
        return PackedMatrix(weight.scheme, values.shape[1], values.contiguous(), scale.contiguous())
    if group_size % 2:
        raise ValueError(f"Groups of {group_size}: kernels take groups of even size.")
    halves = scale.bfloat16()
    kept_scale = halves if torch.equal(halves.float(), scale) else scale
    packed = _pairs(values, group_size)
    return PackedMatrix("int4", values.shape[1], packed, kept_scale.contiguous(), group_size)


def stack(matrices: list[PackedMatrix]) -> PackedMatrix:
    """Matrices of one form and size as one."""
    first = matrices[0]
    for matrix in matrices:
        if matrix.facts() != first.facts() or matrix.values.shape != first.values.shape:
            raise ValueError("Matrices of different forms or sizes do not stack.")
    scale = None
    if first.scale is not None:
        scale = torch.stack([m.scale.float() for m in matrices if m.scale is not None])
        if all(m.scale is not None and m.scale.dtype == torch.bfloat16 for m in matrices):
            scale = scale.bfloat16()
    values = torch.stack([matrix.values.view(torch.uint8) for matrix in matrices])
    values = values.view(first.dtype)
    return PackedMatrix(first.scheme, first.in_features, values, scale, first.group_size)


def restore_matrix(
    facts: Mapping[str, Fact], parts: Mapping[str, Tensor], prefix: str, shape: tuple[int, ...]
) -> PackedMatrix:
    """The matrix [..., N, K] of this shape whose facts and parts these are; the parts are kept.
    Raises ValueError if they do not belong together.
    """
    if fact(facts, "form", str) != "rows":
        raise ValueError(f"there is no form {facts['form']!r} of a matrix")
    scheme, group_size = fact(facts, "scheme", str), fact(facts, "group_size", int)
    *rows, columns = shape
    if scheme in FLOATS:
        return PackedMatrix(scheme, columns, part(parts, f"{prefix}values", shape, FLOATS[scheme]))
    if scheme in ("int8", "fp8"):
        values = part(parts, f"{prefix}values", shape, torch.int8 if scheme == "int8" else FP8)
        scale = part(parts, f"{prefix}scale", tuple(rows), torch.float32)
        return PackedMatrix(scheme, columns, values, scale)
    if scheme != "int4" or group_size < 2 or group_size % 2:
        raise ValueError(f"there is no scheme {scheme!r} with groups of {group_size}")
    groups = -(-columns // group_size)
    values = part(parts, f"{prefix}values", (*rows, groups * group_size // 2), torch.uint8)
    scale = part(parts, f"{prefix}scale", (*rows, groups), torch.float32, torch.bfloat16)
    return PackedMatrix(scheme, columns, values, scale, group_size)


def _rounded(weight: Tensor, scheme: str) -> Quantized:
    match scheme:
        case "int8":
            return quantize_rows(weight)
        case "fp8":
            return quantize_rows_to_fp8(weight)
        case "int4":
            return quantize_groups(weight)
    raise ValueError(f"There is no scheme {scheme!r}.")


def _pairs(values: Tensor, group_size: int) -> Tensor:
    """int8 in -8..7 [N, K] as bytes [N, G * group_size / 2]; what is missing of a group is 0."""
    padded = torch.nn.functional.pad(values, (0, -values.shape[1] % group_size))
    groups = (padded - INT4_MIN).to(torch.uint8).view(len(values), -1, 2, group_size // 2)
    return (groups[:, :, 0] | groups[:, :, 1] << 4).flatten(1)
