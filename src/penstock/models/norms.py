"""Norms as functions of one tensor, chosen once."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.models.spec import Norm, RmsNorm
from penstock.models.weights import NormWeights

Normalise: TypeAlias = Callable[[Tensor], Tensor]


def make_norm(norm: Norm, weights: NormWeights, ops: Ops) -> Normalise:
    """The norm of rows [..., D] that a spec asks for, with its weights in place."""
    weight, bias, eps = weights.weight, weights.bias, norm.eps
    if isinstance(norm, RmsNorm):
        return lambda x: ops.rms_norm(x, weight, eps)
    assert bias is not None
    return lambda x: ops.layer_norm(x, weight, bias, eps)


def per_head(groups: list[tuple[NormWeights, int]]) -> NormWeights:
    """Weights [N, D] of a norm over N heads: each group's, repeated for its number of heads."""
    weight = torch.cat([norm.weight.expand(count, -1) for norm, count in groups])
    biases = [norm.bias.expand(count, -1) for norm, count in groups if norm.bias is not None]
    return NormWeights(weight, torch.cat(biases) if biases else None)


def unchanged(x: Tensor) -> Tensor:
    """The norm of a decoder that has none in this place."""
    return x
