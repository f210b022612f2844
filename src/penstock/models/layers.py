"""How attention, MLP and norms join the stream: one class per form of the residual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import LayerKV, Ops
from penstock.models.attention import Attention, Step
from penstock.models.mlp import MlpFunction, make_mlp
from penstock.models.norms import make_norm
from penstock.models.spec import DecoderSpec, Parallel, Residual, Sequential
from penstock.models.weights import Weights

Layer: TypeAlias = Callable[[Tensor, Step, LayerKV], Tensor]
"""From the stream x [T, hidden], the step, and the layer's cache to the stream after the layer."""


@dataclass(frozen=True, slots=True)
class _TwoNorms:
    ops: Ops
    attention_norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: MlpFunction


class NormBefore(_TwoNorms):
    """Each part reads the normalised stream and adds to the stream
    (https://arxiv.org/abs/2002.04745).
    """

    def __call__(self, x: Tensor, step: Step, cache: LayerKV) -> Tensor:
        x = self.attention(x, step, cache, self.attention_norm, x)
        return self.mlp(x, self.mlp_norm, x)


class NormAfter(_TwoNorms):
    """Each part reads the stream, and the sum of both is normalised
    (https://arxiv.org/abs/1706.03762).
    """

    def __call__(self, x: Tensor, step: Step, cache: LayerKV) -> Tensor:
        x = self.ops.norm(self.attention(x, step, cache, None, x), self.attention_norm)
        return self.ops.norm(self.mlp(x, None, x), self.mlp_norm)


class ParallelTwoNorms(_TwoNorms):
    """Both parts read the same stream, each under its own norm."""

    def __call__(self, x: Tensor, step: Step, cache: LayerKV) -> Tensor:
        attended = self.attention(x, step, cache, self.attention_norm, x)
        return self.mlp(x, self.mlp_norm, attended)


@dataclass(frozen=True, slots=True)
class ParallelOneNorm:
    """Both parts read the same normalised stream (https://arxiv.org/abs/2204.02311)."""

    ops: Ops
    norm: Norm
    attention: Attention
    mlp: MlpFunction

    def __call__(self, x: Tensor, step: Step, cache: LayerKV) -> Tensor:
        h = self.ops.norm(x, self.norm)
        return self.mlp(h, None, self.attention(h, step, cache, None, x))


def make_layer(
    spec: DecoderSpec,
    weights: Weights,
    layer: int,
    ops: Ops,
    plan_number: int,
) -> Layer:
    """Layer number `layer` of a decoder, its attention using the step's plan `plan_number`."""
    prefix = f"layers.{layer}"
    attention = Attention(spec, weights, prefix, ops, plan_number)
    mlp = make_mlp(spec.mlp, weights, prefix, ops)
    first = make_norm(spec.norm, weights.norms[f"{prefix}.attention_norm"])
    if spec.residual == Parallel("shared"):
        return ParallelOneNorm(ops, first, attention, mlp)
    forms: dict[Residual, Callable[..., Layer]] = {
        Sequential("before"): NormBefore,
        Sequential("after"): NormAfter,
        Parallel("separate"): ParallelTwoNorms,
    }
    second = make_norm(spec.norm, weights.norms[f"{prefix}.mlp_norm"])
    return forms[spec.residual](ops, first, attention, second, mlp)
