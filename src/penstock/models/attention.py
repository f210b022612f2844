"""Attention over a paged cache, as a component of a layer."""

from dataclasses import dataclass

from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import AttentionPlan, LayerKV, Ops, Rotation
from penstock.models.norms import make_norm, per_head
from penstock.models.spec import DecoderSpec
from penstock.models.weights import Weights


@dataclass(frozen=True, slots=True)
class Step:
    """What the layers share in one forward pass, worked out before the first of them."""

    slot_mapping: Tensor
    rotation: Rotation | None
    plans: list[AttentionPlan]
    """One plan per distinct attention shape among the layers."""


class Attention:
    """One projection to queries, keys and values, a look into the cache, one projection out."""

    def __init__(
        self,
        spec: DecoderSpec,
        weights: Weights,
        prefix: str,
        ops: Ops,
        plan_number: int,
    ) -> None:
        self.num_projected = spec.num_heads + 2 * spec.num_kv_heads
        self.head_dim = spec.head_dim
        self.qkv = weights.linears[f"{prefix}.qkv"]
        self.out = weights.linears[f"{prefix}.out"]
        self.head_norm = _head_norm(spec, weights, prefix)
        self.plan_number = plan_number
        self.ops = ops

    def __call__(
        self, x: Tensor, step: Step, cache: LayerKV, norm: Norm | None, residual: Tensor
    ) -> Tensor:
        """From x [T, hidden], which goes through the norm first if there is one, to the sum of
        residual [T, hidden] and what attention adds to it. cache is this layer's.
        """
        heads = self.ops.linear(x, self.qkv, norm=norm)
        heads = heads.view(x.shape[0], self.num_projected, self.head_dim)
        query = self.ops.rope_write_kv(
            heads, self.head_norm, step.rotation, cache, step.slot_mapping
        )
        read = self.ops.paged_attention(query, cache, step.plans[self.plan_number])
        return self.ops.linear(read.flatten(1), self.out, residual=residual)


def _head_norm(spec: DecoderSpec, weights: Weights, prefix: str) -> Norm | None:
    """One norm over the query and key heads of a layer together, each kind with its own weights."""
    if not spec.qk_norm:
        return None
    query, key = weights.norms[f"{prefix}.q_norm"], weights.norms[f"{prefix}.k_norm"]
    return make_norm(spec.norm, per_head([(query, spec.num_heads), (key, spec.num_kv_heads)]))
