"""A mixture of gated MLPs in C++: tokens are gathered by expert while they are rounded, each
expert's weights are read once, and a token's outputs are added in its own order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address
from penstock.kernels.experts.packed import (
    experts_facts,
    experts_parts,
    restore_experts_linears,
)
from penstock.kernels.linear.cpu import ACTIVATIONS, PanelLinear, pack_linear, restore_linear
from penstock.kernels.packed import Fact
from penstock.kernels.quantization import Matrix


@dataclass(frozen=True, slots=True)
class PanelExperts:
    """The two linears of every expert."""

    gate_up: tuple[PanelLinear, ...]
    down: tuple[PanelLinear, ...]
    handle: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pairs = list(zip(self.gate_up, self.down, strict=True))
        if not pairs:
            raise ValueError("A mixture needs at least one expert.")
        width, hidden = pairs[0][0].in_features, pairs[0][1].in_features
        for gate_up, down in pairs:
            if not gate_up.gated or down.gated:
                raise ValueError("Of an expert's linears the first is gated, the second is not.")
            found = gate_up.in_features, gate_up.num_outputs, down.in_features, down.num_outputs
            if found != (width, hidden, hidden, width):
                raise ValueError(f"Experts of {found} and {(width, hidden)} do not mix.")
        handles = [linear.handle for linear in self.gate_up], [e.handle for e in self.down]
        object.__setattr__(self, "handle", _native.PackedExperts(*handles))

    def parts(self) -> dict[str, Tensor]:
        """Those of every expert's linears."""
        return experts_parts(self.gate_up, self.down)

    def facts(self) -> dict[str, Fact]:
        """How many they are, their sizes, and what their linears have in common."""
        return experts_facts(self.down)


def pack_experts(gate_up: list[Matrix], down: list[Matrix], scheme: str) -> PanelExperts:
    """Pack every expert's gate_up [2 * I, D] and down [D, I], each as a linear."""
    return PanelExperts(
        tuple(pack_linear(weight, None, scheme, gated=True) for weight in gate_up),
        tuple(pack_linear(weight, None, scheme) for weight in down),
    )


def restore_experts(facts: Mapping[str, Fact], parts: Mapping[str, Tensor]) -> PanelExperts:
    """The experts whose facts and parts these are; the parts are kept, not copied. Raises
    ValueError if they do not belong together, or not to the instruction set in use.
    """
    return PanelExperts(*restore_experts_linears(facts, parts, restore_linear))


def experts(
    x: Tensor, router_logits: Tensor, packed: PanelExperts, top_k: int, kind: str
) -> Tensor:
    """Send each token of x [T, D] float32 through the top_k experts it prefers: [T, D]."""
    width, count = packed.gate_up[0].in_features, len(packed.gate_up)
    if x.dim() != 2 or x.shape[1] != width or router_logits.shape != (len(x), count):
        raise ValueError(
            f"x is {list(x.shape)} and the logits are {list(router_logits.shape)} where "
            f"rows of {width} and of {count} are due."
        )
    if not 1 <= top_k <= count:
        raise ValueError(f"{top_k} of {count} experts cannot be chosen.")
    out = torch.empty_like(x)
    _native.experts(
        packed.handle,
        address(x, "x"),
        address(router_logits, "the router's logits"),
        address(out, "out"),
        len(x),
        top_k,
        ACTIVATIONS[kind],
    )
    return out
