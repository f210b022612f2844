"""The affine map in torch: the packed object is the matrix as it came, beside its bias."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """A matrix of floats [out, in] and, where there is one, a bias [out]."""

    weight: Tensor
    bias: Tensor | None


def pack_linear(weight: Tensor, bias: Tensor | None) -> DenseLinear:
    """Make what `linear` takes of a weight [out, in] and a bias [out] or None. No copy."""
    return DenseLinear(weight, bias)


def linear(x: Tensor, packed: DenseLinear) -> Tensor:
    """x [T, in] times the packed weight, plus its bias: [T, out], in x's dtype."""
    return functional.linear(x, packed.weight, packed.bias)
