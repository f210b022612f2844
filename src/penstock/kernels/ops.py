"""All that a model may ask of the hardware: functions, replaced one by one by a faster backend.

Each default states, in its docstring, what its replacement must compute. What `pack_linear`,
`pack_experts` and `plan_attention` return is opaque: only the same backend's ops look inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from penstock.kernels.activation.reference import activation
from penstock.kernels.embedding.reference import embedding
from penstock.kernels.experts.reference import experts, pack_experts
from penstock.kernels.gated_activation.reference import gated_activation
from penstock.kernels.layer_norm.reference import layer_norm
from penstock.kernels.linear.reference import linear, pack_linear
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.paged_attention.plan import plan_attention
from penstock.kernels.paged_attention.reference import paged_attention
from penstock.kernels.rms_norm.reference import rms_norm
from penstock.kernels.rope.reference import rope
from penstock.kernels.step_layout import StepLayout
from penstock.kernels.write_kv.reference import write_kv

PackedLinear: TypeAlias = Any
PackedExperts: TypeAlias = Any
AttentionPlan: TypeAlias = Any


@dataclass(frozen=True, kw_only=True)
class Ops:
    """A complete set of operations; a backend is `replace(REFERENCE, ...)`.

    T tokens, S sequences, H query heads, K key-value heads, D head size, E experts.
    """

    embedding: Callable[[Tensor, Tensor], Tensor] = embedding
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    layer_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = layer_norm
    pack_linear: Callable[[Tensor, Tensor | None], PackedLinear] = pack_linear
    linear: Callable[[Tensor, PackedLinear], Tensor] = linear
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = rope
    write_kv: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = write_kv
    plan_attention: Callable[[StepLayout, AttentionShape, int], AttentionPlan] = plan_attention
    paged_attention: Callable[[Tensor, Tensor, Tensor, AttentionPlan], Tensor] = paged_attention
    activation: Callable[[Tensor, str], Tensor] = activation
    gated_activation: Callable[[Tensor, str], Tensor] = gated_activation
    pack_experts: Callable[[list[Tensor], list[Tensor]], PackedExperts] = pack_experts
    experts: Callable[[Tensor, Tensor, PackedExperts, int, str], Tensor] = experts


REFERENCE = Ops()
