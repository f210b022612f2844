"""A norm with its weights, as ops take it: alone, or as the first thing a linear does."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm of rows of width D.

    "rms" scales a row to unit root-mean-square, then by the weight
    (https://arxiv.org/abs/1910.07467); "layer" centres it first, scales it to unit variance, and
    adds the bias last (https://arxiv.org/abs/1607.06450). weight, and bias where there is one, are
    float [D], or [N, D] for rows [T, N, D]: one norm for each of N heads.
    """

    kind: Literal["rms", "layer"]
    weight: Tensor
    bias: Tensor | None
    eps: float
