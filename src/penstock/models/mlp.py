"""The position-wise half of a layer, in its three forms."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import Ops
from penstock.models.spec import Experts, Gated, Mlp, Plain
from penstock.models.weights import Weights

MlpFunction: TypeAlias = Callable[[Tensor, Norm | None, Tensor], Tensor]
"""From x [T, hidden], the norm that it goes through first, if any, and a residual [T, hidden] to
the sum of the residual and the MLP's output.
"""


def make_mlp(mlp: Mlp, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    """The MLP that a spec asks for, with its weights in place."""
    match mlp:
        case Gated(activation=kind):
            return _dense("gate_up", kind, weights, prefix, ops)
        case Plain(activation=kind):
            return _dense("up", kind, weights, prefix, ops)
        case Experts():
            return _experts(mlp, weights, prefix, ops)


def _dense(first: str, kind: str, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    up, down = weights.linears[f"{prefix}.{first}"], weights.linears[f"{prefix}.down"]

    def mlp(x: Tensor, norm: Norm | None, residual: Tensor) -> Tensor:
        hidden = ops.linear(x, up, norm=norm, activation=kind)
        return ops.linear(hidden, down, residual=residual)

    return mlp


def _experts(mlp: Experts, weights: Weights, prefix: str, ops: Ops) -> MlpFunction:
    router, experts = weights.linears[f"{prefix}.router"], weights.experts[f"{prefix}.experts"]

    def mixture(x: Tensor, norm: Norm | None, residual: Tensor) -> Tensor:
        h = x if norm is None else ops.norm(x, norm)
        return residual + ops.experts(h, ops.linear(h, router), experts, mlp.top_k, mlp.activation)

    return mixture
