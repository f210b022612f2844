"""Norms with their weights in place, as ops take them."""

import torch

from penstock.kernels.norm.contract import Norm
from penstock.models.spec import Norm as NormSpec
from penstock.models.spec import RmsNorm
from penstock.models.weights import NormWeights


def make_norm(norm: NormSpec, weights: NormWeights) -> Norm:
    """The norm that a spec asks for, with its weights."""
    return Norm(
        "rms" if isinstance(norm, RmsNorm) else "layer", weights.weight, weights.bias, norm.eps
    )


def per_head(groups: list[tuple[NormWeights, int]]) -> NormWeights:
    """Weights [N, D] of a norm over N heads: each group's, repeated for its number of heads."""
    weight = torch.cat([norm.weight.expand(count, -1) for norm, count in groups])
    biases = [norm.bias.expand(count, -1) for norm, count in groups if norm.bias is not None]
    return NormWeights(weight, torch.cat(biases) if biases else None)
