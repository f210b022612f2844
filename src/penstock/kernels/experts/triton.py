"""A mixture of gated MLPs on a GPU: visits sorted by expert, then two grouped products over all
experts' weights (https://arxiv.org/abs/2211.15841). The host counts nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
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
from penstock.kernels.triton.target import power_of_two

_BLOCK = 1024


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


@triton.jit
def _mix(visited, shares, out, width, top_k, BLOCK: tl.constexpr):
    """What a token's experts made of it, each by its share, added up from the most preferred on."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = column < width
    total = tl.zeros([BLOCK], tl.float32)
    for number in range(top_k):
        visit = row * top_k + number
        found = tl.load(visited + visit * width + column, mask=is_there, other=0.0)
        total += found.to(tl.float32) * tl.load(shares + visit)
    tl.store(out + row * width + column, total.to(out.dtype.element_ty), mask=is_there)


def experts(
    x: Tensor,
    router_logits: Tensor,
    packed: TritonExperts,
    top_k: int,
    kind: str,
    *,
    deterministic: bool = False,
) -> Tensor:
    """Send each token of x [T, D] through the top_k experts it prefers: [T, D]. With deterministic,
    a token's bits do not depend on how many there are.
    """
    if x.dim() != 2 or router_logits.shape != (len(x), packed.count):
        raise ValueError(
            f"x is {list(x.shape)} and the logits are {list(router_logits.shape)} where "
            f"rows of {packed.gate_up.in_features} and of {packed.count} are due."
        )
    # Shares of all, renormalised over the chosen, are shares of the chosen. torch computes both
    # steps row by row, in an order that follows from the row's length alone.
    preferred, chosen = router_logits.float().topk(top_k, dim=-1)
    shares = torch.softmax(preferred, dim=-1)
    expert, order = torch.sort(chosen.flatten(), stable=True)
    numbers = torch.arange(packed.count + 1, device=x.device)
    starts = torch.searchsorted(expert, numbers, out_int32=True)
    there, back = (Visits(order, starts, top_k, gathers=each) for each in (True, False))
    hidden = _product(x.contiguous(), packed.gate_up, there, kind, deterministic)
    visited = _product(hidden, packed.down, back, None, deterministic)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if out.numel():
        block = min(_BLOCK, power_of_two(x.shape[1]))
        grid = (len(x), triton.cdiv(x.shape[1], block))
        _mix[grid](visited, shares, out, x.shape[1], top_k, BLOCK=block)
    return out


def _product(
    x: Tensor, weight: PackedMatrix, visits: Visits, kind: str | None, deterministic: bool
) -> Tensor:
    """One of the two grouped products; the first is gated."""
    scale = None
    rows = x
    if weight.scheme in ("int8", "fp8"):
        rows, scale = round_rows(x, None, weight.dtype)
    return product(
        rows,
        scale,
        weight,
        dtype=x.dtype,
        gated=kind is not None,
        activation=kind,
        visits=visits,
        deterministic=deterministic,
    )
