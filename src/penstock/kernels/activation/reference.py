"""The elementwise non-linearities by the names Hugging Face configs use."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

_tanh_gelu = partial(functional.gelu, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    """The logistic approximation of GELU (https://arxiv.org/abs/1606.08415)."""
    return x * (1.702 * x).sigmoid()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "gelu": functional.gelu,
        "gelu_fast": _tanh_gelu,
        "gelu_new": _tanh_gelu,
        "gelu_pytorch_tanh": _tanh_gelu,
        "quick_gelu": _quick_gelu,
        "relu": functional.relu,
        "silu": functional.silu,
        "swish": functional.silu,
    }
)


def activate(x: Tensor, kind: str) -> Tensor:
    """Apply the non-linearity called kind, a key of `ACTIVATIONS`, to every element of x."""
    return ACTIVATIONS[kind](x)


def activate_gate(gate_up: Tensor, kind: str) -> Tensor:
    """Split gate_up [T, 2 * I] into a gate and an up half: kind(gate) * up, [T, I]
    (https://arxiv.org/abs/2002.05202).
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[kind](gate) * up
