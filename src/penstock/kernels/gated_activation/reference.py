"""Gated linear units (https://arxiv.org/abs/2002.05202) after their fused projection."""

from torch import Tensor

from penstock.kernels.activation.reference import ACTIVATIONS


def gated_activation(gate_up: Tensor, kind: str) -> Tensor:
    """Split gate_up [T, 2 * I] into a gate and an up half: kind(gate) * up, [T, I]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[kind](gate) * up
