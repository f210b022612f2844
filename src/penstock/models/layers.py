"""How attention, MLP and norms join the stream: one class per form of the residual."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.models.attention import Attention, Step
from penstock.models.mlp import MlpFunction, make_mlp
from penstock.models.norms import Normalise, make_norm
from penstock.models.positions import Positions
from penstock.models.spec import DecoderSpec, Parallel, Residual, Sequential
from penstock.models.weights import Weights

Layer: TypeAlias = Callable[[Tensor, Step, Tensor, Tensor], Tensor]
"""From the stream x [T, hidden], the step, and the layer's keys and values to the stream after the
layer.
"""


@dataclass(frozen=True, slots=True)
class _TwoNorms:
    attention_norm: Normalise
    attention: Attention
    mlp_norm: Normalise
    mlp: MlpFunction


class NormBefore(_TwoNorms):
    """Each part reads the normalised stream and adds to the stream
    (https://arxiv.org/abs/2002.04745).
    """

    def __call__(self, x: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), step, keys, values)
        return x + self.mlp(self.mlp_norm(x))


class NormAfter(_TwoNorms):
    """Each part reads the stream, and the sum of both is normalised
    (https://arxiv.org/abs/1706.03762).
    """

    def __call__(self, x: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, step, keys, values))
        return self.mlp_norm(x + self.mlp(x))


class ParallelTwoNorms(_TwoNorms):
    """Both parts read the same stream, each under its own norm."""

    def __call__(self, x: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        attended = self.attention(self.attention_norm(x), step, keys, values)
        return x + attended + self.mlp(self.mlp_norm(x))


@dataclass(frozen=True, slots=True)
class ParallelOneNorm:
    """Both parts read the same normalised stream (https://arxiv.org/abs/2204.02311)."""

    norm: Normalise
    attention: Attention
    mlp: MlpFunction

    def __call__(self, x: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        h = self.norm(x)
        return x + self.attention(h, step, keys, values) + self.mlp(h)


def make_layer(
    spec: DecoderSpec,
    weights: Weights,
    layer: int,
    ops: Ops,
    positions: Positions,
    plan_number: int,
) -> Layer:
    """Layer number `layer` of a decoder, its attention using the step's plan `plan_number`."""
    prefix = f"layers.{layer}"
    attention = Attention(spec, weights, prefix, ops, positions, plan_number)
    mlp = make_mlp(spec.mlp, weights, prefix, ops)
    first = make_norm(spec.norm, weights.norms[f"{prefix}.attention_norm"], ops)
    if spec.residual == Parallel("shared"):
        return ParallelOneNorm(first, attention, mlp)
    forms: dict[Residual, Callable[..., Layer]] = {
        Sequential("before"): NormBefore,
        Sequential("after"): NormAfter,
        Parallel("separate"): ParallelTwoNorms,
    }
    return forms[spec.residual](
        first, attention, make_norm(spec.norm, weights.norms[f"{prefix}.mlp_norm"], ops), mlp
    )
