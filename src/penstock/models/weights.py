"""Loaded weights by slot label, in the form the decoder's components take."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from penstock.kernels.ops import PackedExperts, PackedLinear


class NormWeights(NamedTuple):
    """A weight [D], and a bias [D] where the norm has one."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything a decoder computes with. A component takes what its slots are called, from its own
    layer.
    """

    tables: dict[str, Tensor]
    norms: dict[str, NormWeights]
    linears: dict[str, PackedLinear]
    experts: dict[str, PackedExperts]
