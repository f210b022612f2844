"""Loaded weights by slot label, in the form the decoder's components take."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from penstock.kernels.ops import PackedExperts, PackedLinear
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, TableSlot


class NormWeights(NamedTuple):
    """A weight [D], and a bias [D] where the norm has one."""

    weight: Tensor
    bias: Tensor | None


Content: TypeAlias = Tensor | NormWeights | PackedLinear | PackedExperts
"""What fills a slot: a table, a norm's weights, or what a backend packed."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything a decoder computes with. A component takes what its slots are called, from its own
    layer.
    """

    tables: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, NormWeights] = field(default_factory=dict)
    linears: dict[str, PackedLinear] = field(default_factory=dict)
    experts: dict[str, PackedExperts] = field(default_factory=dict)

    def put(self, slot: Slot, content: Content) -> None:
        """Fill a slot."""
        self._place(slot)[slot.label] = content

    def _place(self, slot: Slot) -> dict[str, Any]:
        match slot:
            case TableSlot():
                return self.tables
            case NormSlot():
                return self.norms
            case LinearSlot():
                return self.linears
            case ExpertsSlot():
                return self.experts
