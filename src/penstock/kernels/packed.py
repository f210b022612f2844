"""Packed weights as something that can be written to a file and mapped back.

What a backend makes of a matrix is its own affair; here stands what anyone else may know of it. So
snapshots work for every backend and scheme, and for those to come.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

Fact: TypeAlias = int | float | str | bool
F = TypeVar("F", int, float, str, bool)


@dataclass(frozen=True, slots=True)
class Packing:
    """The form into which a backend packs weights: what was packed in one is of use only there.

    version counts the layouts that the backend has had; whoever changes a layout raises it.
    """

    instruction_set: str
    version: int


class Packed(Protocol):
    """Weights in the form one backend takes. Its `restore_linear` or `restore_experts` makes an
    equal object of what these two functions return.

    The facts of a linear have at least its out_features, in_features, and whether it is gated;
    those of experts their count, hidden and intermediate sizes.
    """

    def parts(self) -> dict[str, Tensor]:
        """Every tensor that it is made of, by names of its own; no copies."""

    def facts(self) -> dict[str, Fact]:
        """All else that must be known to make it of its parts."""


def fact(facts: Mapping[str, Fact], name: str, kind: type[F]) -> F:
    """The fact of this name. Raises ValueError if there is none, or one of another type."""
    found = facts.get(name)
    if type(found) is not kind:
        raise ValueError(f"the fact {name} must be of type {kind.__name__}, not {found!r}")
    return found


def part(
    parts: Mapping[str, Tensor], name: str, shape: tuple[int, ...], *dtypes: torch.dtype
) -> Tensor:
    """The part of this name. Raises ValueError unless it is there, contiguous, of this shape and
    one of these types: a kernel that computes with addresses would read beyond its end.
    """
    found = parts.get(name)
    if found is None:
        raise ValueError(f"the part {name} is missing")
    if tuple(found.shape) != shape or found.dtype not in dtypes or not found.is_contiguous():
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(
            f"the part {name} must be {list(shape)} {wanted}, not {list(found.shape)} {found.dtype}"
        )
    return found
