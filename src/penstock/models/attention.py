"""Attention over a paged cache, as a component of a layer."""

from dataclasses import dataclass

from torch import Tensor

from penstock.kernels.ops import AttentionPlan, Ops
from penstock.models.norms import Normalise, make_norm, per_head, unchanged
from penstock.models.positions import Positions, Rotation
from penstock.models.spec import DecoderSpec
from penstock.models.weights import Weights


@dataclass(frozen=True, slots=True)
class Step:
    """What the layers share in one forward pass, worked out before the first of them."""

    slot_mapping: Tensor
    rotation: Rotation
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
        positions: Positions,
        plan_number: int,
    ) -> None:
        self.num_heads = spec.num_heads
        self.num_kv_heads = spec.num_kv_heads
        self.head_dim = spec.head_dim
        self.qkv = weights.linears[f"{prefix}.qkv"]
        self.out = weights.linears[f"{prefix}.out"]
        self.norm_heads = _head_norm(spec, weights, prefix, ops)
        self.turn = positions.turn
        self.plan_number = plan_number
        self.ops = ops

    def __call__(self, x: Tensor, step: Step, keys: Tensor, values: Tensor) -> Tensor:
        """x [T, hidden] to [T, hidden]; keys and values are this layer's cache."""
        num_heads, num_turned = self.num_heads, self.num_heads + self.num_kv_heads
        shape = (x.shape[0], num_turned + self.num_kv_heads, self.head_dim)
        heads = self.ops.linear(x, self.qkv).view(shape)
        turned = self.turn(self.norm_heads(heads[:, :num_turned]), step.rotation)
        key, value = turned[:, num_heads:], heads[:, num_turned:]
        self.ops.write_kv(key, value, keys, values, step.slot_mapping)
        query, plan = turned[:, :num_heads], step.plans[self.plan_number]
        read = self.ops.paged_attention(query, keys, values, plan)
        return self.ops.linear(read.flatten(1), self.out)


def _head_norm(spec: DecoderSpec, weights: Weights, prefix: str, ops: Ops) -> Normalise:
    """One norm over the query and key heads of a layer together, each kind with its own weights."""
    if not spec.qk_norm:
        return unchanged
    query, key = weights.norms[f"{prefix}.q_norm"], weights.norms[f"{prefix}.k_norm"]
    return make_norm(spec.norm, per_head([(query, spec.num_heads), (key, spec.num_kv_heads)]), ops)
