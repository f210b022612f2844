"""The position-wise half of a layer, in its three forms."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.models.spec import Experts, Gated, Mlp, Plain
from penstock.models.weights import Weights

MlpFunction: TypeAlias = Callable[[Tensor], Tensor]


def make_mlp(mlp: Mlp, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    """The MLP [T, hidden] to [T, hidden] that a spec asks for, with its weights in place."""
    match mlp:
        case Gated(activation=kind):
            return _gated(kind, weights, prefix, ops)
        case Plain(activation=kind):
            return _plain(kind, weights, prefix, ops)
        case Experts():
            return _experts(mlp, weights, prefix, ops)


def _gated(kind: str, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    gate_up, down = weights.linears[f"{prefix}.gate_up"], weights.linears[f"{prefix}.down"]
    return lambda x: ops.linear(ops.gated_activation(ops.linear(x, gate_up), kind), down)


def _plain(kind: str, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    up, down = weights.linears[f"{prefix}.up"], weights.linears[f"{prefix}.down"]
    return lambda x: ops.linear(ops.activation(ops.linear(x, up), kind), down)


def _experts(mlp: Experts, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    router, experts = weights.linears[f"{prefix}.router"], weights.experts[f"{prefix}.experts"]
    return lambda x: ops.experts(x, ops.linear(x, router), experts, mlp.top_k, mlp.activation)
