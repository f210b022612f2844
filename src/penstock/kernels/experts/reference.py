"""A sparse mixture of gated MLPs (https://arxiv.org/abs/2401.04088), one expert after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.kernels.linear.reference import (
    DenseLinear,
    QuantizedLinear,
    linear,
    pack_linear,
    restore_linear,
)
from penstock.kernels.packed import Fact, fact
from penstock.kernels.quantization import Matrix


@dataclass(frozen=True, slots=True)
class DenseExperts:
    """The two linears of every expert."""

    gate_up: tuple[DenseLinear | QuantizedLinear, ...]
    down: tuple[DenseLinear | QuantizedLinear, ...]

    def parts(self) -> dict[str, Tensor]:
        """Those of every expert's linears."""
        named = {"gate_up": self.gate_up, "down": self.down}
        return {
            f"{name}.{expert}.{part}": tensor
            for name, linears in named.items()
            for expert, linear in enumerate(linears)
            for part, tensor in linear.parts().items()
        }

    def facts(self) -> dict[str, Fact]:
        """How many they are, their sizes, and what their linears have in common."""
        facts = self.down[0].facts()
        return {
            "count": len(self.down),
            "hidden": facts.pop("out_features"),
            "intermediate": facts.pop("in_features"),
        } | facts


def pack_experts(gate_up: list[Matrix], down: list[Matrix], scheme: str) -> DenseExperts:
    """Make of every expert's gate_up [2 * I, D] and down [D, I] what `experts` takes, kept as
    `pack_linear` keeps a weight.
    """
    return DenseExperts(
        tuple(pack_linear(weight, None, scheme, gated=True) for weight in gate_up),
        tuple(pack_linear(weight, None, scheme) for weight in down),
    )


def restore_experts(facts: Mapping[str, Fact], parts: Mapping[str, Tensor]) -> DenseExperts:
    """The experts whose facts and parts these are; the parts are kept, not copied. Raises
    ValueError if they do not belong together.
    """
    hidden, inner = fact(facts, "hidden", int), fact(facts, "intermediate", int)

    def linears(
        name: str, rows: int, columns: int, *, gated: bool
    ) -> Iterator[DenseLinear | QuantizedLinear]:
        own: dict[str, Fact] = {"out_features": rows, "in_features": columns, "gated": gated}
        for expert in range(fact(facts, "count", int)):
            prefix = f"{name}.{expert}."
            found = {part[len(prefix) :]: parts[part] for part in parts if part.startswith(prefix)}
            yield restore_linear({**facts, **own}, found)

    return DenseExperts(
        tuple(linears("gate_up", 2 * inner, hidden, gated=True)),
        tuple(linears("down", hidden, inner, gated=False)),
    )


def experts(
    x: Tensor, router_logits: Tensor, packed: DenseExperts, top_k: int, kind: str
) -> Tensor:
    """Send each token of x [T, D] through the top_k experts its router_logits [T, E] prefer: [T,
    D].

    The chosen experts' outputs are weighted by the softmax of the logits, renormalised over the
    chosen ones. Tokens are grouped by expert, so each weight is read once, and no token waits for
    another.
    """
    shares, chosen = torch.softmax(router_logits.float(), dim=-1).topk(top_k, dim=-1)
    shares /= shares.sum(dim=-1, keepdim=True)
    order = torch.argsort(chosen.flatten(), stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=len(packed.gate_up)).tolist()
    weighted = x.new_empty(chosen.numel(), x.shape[-1])
    start = 0
    for count, gate_up, down in zip(counts, packed.gate_up, packed.down, strict=True):
        if count:
            visits = order[start : start + count]
            hidden = linear(x[visits // top_k], gate_up, activation=kind)
            weighted[visits] = linear(hidden, down)
            start += count
    by_token = weighted.view(x.shape[0], top_k, x.shape[-1])
    return (by_token * shares[..., None]).sum(dim=1).to(x.dtype)
