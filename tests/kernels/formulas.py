"""What each operation computes, written as plainly as possible, in float64."""

import math
from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.double()
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weight


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    x = x.double() - x.double().mean(-1, keepdim=True)
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weight + bias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def rope(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair is a complex number, turned by multiplication with another."""
    size = cos.shape[-1]
    half = size // 2
    pairs = torch.complex(heads[..., :half].double(), heads[..., half:size].double())
    turn = torch.complex(cos[..., :half].double(), sin[..., half:].double())
    turned = pairs * turn
    return torch.cat((turned.real, turned.imag, heads[..., size:].double()), dim=-1)


def write_kv(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
) -> tuple[Tensor, Tensor]:
    block_size = key_cache.shape[1]
    caches = key_cache.double(), value_cache.double()
    for token, slot in enumerate(slot_mapping.tolist()):
        caches[0][slot // block_size, slot % block_size] = key[token]
        caches[1][slot // block_size, slot % block_size] = value[token]
    return caches


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


def activation(x: Tensor, kind: str) -> Tensor:
    result: Tensor = ACTIVATIONS[kind](x.double())
    return result


def gated_activation(gate_up: Tensor, kind: str) -> Tensor:
    half = gate_up.shape[-1] // 2
    return activation(gate_up[:, :half], kind) * gate_up[:, half:].double()


def experts(
    x: Tensor, logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, kind: str
) -> Tensor:
    """Token by token: the best experts, their shares, their outputs."""
    rows = []
    for token, scores in zip(x, logits.double(), strict=True):
        best = sorted(range(len(scores)), key=lambda e: -scores[e].item())[:top_k]
        shares = torch.exp(scores[best]) / torch.exp(scores[best]).sum()
        outputs = [
            linear(gated_activation(linear(token[None], gate_up[e], None), kind), down[e], None)[0]
            for e in best
        ]
        rows.append(sum(share * output for share, output in zip(shares, outputs, strict=True)))
    return torch.stack(rows)
