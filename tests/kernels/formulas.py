"""What each operation computes, written as plainly as possible, in float64."""

import math
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.norm.contract import Norm


def norm(x: Tensor, weights: Norm) -> Tensor:
    x = x.double()
    if weights.kind == "layer":
        x = x - x.mean(-1, keepdim=True)
    y = x / torch.sqrt((x**2).mean(-1, keepdim=True) + weights.eps) * weights.weight
    return y if weights.bias is None else y + weights.bias


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    weights: Norm | None = None,
    activation: str | None = None,
    gated: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    h = x.double() if weights is None else norm(x, weights)
    y = h @ weight.double().T
    y = y if bias is None else y + bias.double()
    if gated:
        gate, up = y.chunk(2, dim=-1)
        y = ACTIVATIONS[activation or ""](gate) * up
    elif activation is not None:
        y = ACTIVATIONS[activation](y)
    return y if residual is None else residual.double() + y


def rope_write_kv(
    heads: Tensor, weights: Norm | None, rotation: Any, num_kv_heads: int
) -> tuple[Tensor, Tensor]:
    """The queries, and what each reads of the keys and values up to its own."""
    turned, value = heads[:, :-num_kv_heads].double(), heads[:, -num_kv_heads:].double()
    turned = turned if weights is None else norm(turned, weights)
    turned = turned if rotation is None else rope(turned, *rotation)
    query, key = turned[:, :-num_kv_heads], turned[:, -num_kv_heads:]
    group = query.shape[1] // num_kv_heads
    scores = torch.einsum("qhd,khd->hqk", query, key.repeat_interleave(group, 1)) * 0.3
    ahead = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    weight = torch.softmax(scores.masked_fill(ahead, -math.inf), -1)
    return query, torch.einsum("hqk,khd->qhd", weight, value.repeat_interleave(group, 1))


def rope(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair is a complex number, turned by multiplication with another."""
    half = cos.shape[-1]
    pairs = torch.complex(heads[..., :half].double(), heads[..., half : 2 * half].double())
    turned = pairs * torch.complex(cos.double(), sin.double()).unsqueeze(1)
    return torch.cat((turned.real, turned.imag, heads[..., 2 * half :].double()), dim=-1)


def _tanh_gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS: dict[str, Any] = {
    "gelu": lambda x: x / 2 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_fast": _tanh_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}


def experts(
    x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, kind: str
) -> Tensor:
    """Token by token: the best experts, their shares, their outputs."""
    rows = []
    for token, scores in zip(x, logits.double(), strict=True):
        best = sorted(range(len(scores)), key=lambda e: -scores[e].item())[:top_k]
        shares = torch.exp(scores[best]) / torch.exp(scores[best]).sum()
        outputs = [
            linear(linear(token[None], gate_up[e], activation=kind, gated=True), down[e])[0]
            for e in best
        ]
        rows.append(sum(share * output for share, output in zip(shares, outputs, strict=True)))
    return torch.stack(rows)
