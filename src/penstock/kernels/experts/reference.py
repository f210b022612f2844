"""A sparse mixture of gated MLPs (https://arxiv.org/abs/2401.04088), one expert after the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.kernels.linear.reference import (
    DenseLinear,
    QuantizedLinear,
    linear,
    pack_linear,
)


@dataclass(frozen=True, slots=True)
class DenseExperts:
    """The two linears of every expert."""

    gate_up: tuple[DenseLinear | QuantizedLinear, ...]
    down: tuple[DenseLinear | QuantizedLinear, ...]


def pack_experts(gate_up: list[Tensor], down: list[Tensor], scheme: str) -> DenseExperts:
    """Make of every expert's gate_up [2 * I, D] and down [D, I] what `experts` takes, kept as
    `pack_linear` keeps a weight.
    """
    return DenseExperts(
        tuple(pack_linear(weight, None, scheme, gated=True) for weight in gate_up),
        tuple(pack_linear(weight, None, scheme) for weight in down),
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
