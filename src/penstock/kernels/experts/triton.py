"""A mixture of gated MLPs on a GPU: visits sorted by expert, then two grouped products over all
experts' weights (https://arxiv.org/abs/2211.15841). The host counts nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.kernels.linear.triton_around import round_rows
from penstock.kernels.linear.triton_matrix import (
    PackedMatrix,
    pack_matrix,
    restore_matrix,
    stack,
)
from penstock.kernels.linear.triton_product import Visits, product
from penstock.kernels.packed import Fact, fact
from penstock.kernels.quantization import Matrix


@dataclass(frozen=True, slots=True)
class TritonExperts:
    """Every expert's gate_up, stacked [E, 2 * I, D], and down [E, D, I]."""

    gate_up: PackedMatrix
    down: PackedMatrix

    @property
    def count(self) -> int:
        return len(self.down.values)

    def parts(self) -> dict[str, Tensor]:
        """The stacks' tensors."""
        return self.gate_up.parts("gate_up.") | self.down.parts("down.")

    def facts(self) -> dict[str, Fact]:
        """How many experts there are, and their sizes and form."""
        sizes: dict[str, Fact] = {
            "count": self.count,
            "hidden": self.down.out_features,
            "intermediate": self.down.in_features,
        }
        return sizes | self.down.facts()


def pack_experts(gate_up: list[Matrix], down: list[Matrix], scheme: str) -> TritonExperts:
    """Pack and stack every expert's gate_up [2 * I, D] and down [D, I]."""
    return TritonExperts(
        stack([pack_matrix(weight, scheme) for weight in gate_up]),
        stack([pack_matrix(weight, scheme) for weight in down]),
    )


def restore_experts(facts: Mapping[str, Fact], parts: Mapping[str, Tensor]) -> TritonExperts:
    """The experts whose facts and parts these are, as the reference's `restore_experts` has it."""
    count, hidden, inner = (fact(facts, each, int) for each in ("count", "hidden", "intermediate"))
    return TritonExperts(
        restore_matrix(facts, parts, "gate_up.", (count, 2 * inner, hidden)),
        restore_matrix(facts, parts, "down.", (count, hidden, inner)),
    )


def experts(
    x: Tensor, router_logits: Tensor, packed: TritonExperts, top_k: int, kind: str
) -> Tensor:
    """Send each token of x [T, D] through the top_k experts it prefers: [T, D]."""
    if x.dim() != 2 or router_logits.shape != (len(x), packed.count):
        raise ValueError(
            f"x is {list(x.shape)} and the logits are {list(router_logits.shape)} where "
            f"rows of {packed.gate_up.in_features} and of {packed.count} are due."
        )
    shares, chosen = torch.softmax(router_logits.float(), dim=-1).topk(top_k, dim=-1)
    shares = shares / shares.sum(dim=-1, keepdim=True)
    expert, order = torch.sort(chosen.flatten(), stable=True)
    numbers = torch.arange(packed.count + 1, device=x.device)
    starts = torch.searchsorted(expert, numbers, out_int32=True)
    hidden = _product(
        x.contiguous(), packed.gate_up, Visits(order, starts, top_k, gathers=True), kind
    )
    visited = _product(hidden, packed.down, Visits(order, starts, top_k, gathers=False), None)
    by_token = visited.view(len(x), top_k, x.shape[1])
    return (by_token * shares[..., None]).sum(dim=1).to(x.dtype)


def _product(x: Tensor, weight: PackedMatrix, visits: Visits, kind: str | None) -> Tensor:
    """One of the two grouped products; the first is gated."""
    dtype, scale = x.dtype, None
    if weight.scheme in ("int8", "fp8"):
        x, scale = round_rows(x, None, weight.dtype)
    gated = kind is not None
    return product(x, scale, weight, dtype=dtype, gated=gated, activation=kind, visits=visits)
