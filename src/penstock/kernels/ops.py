"""All that a model may ask of the hardware: functions, replaced one by one by a faster backend.

Each default states, in its docstring, what its replacement must compute. What `pack_linear`,
`pack_experts`, `layer_kv` and `plan_attention` return is opaque: only the same backend's ops look
inside. Packed weights answer to `Packed` besides, so that a file can hold them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from penstock.kernels.embedding.reference import embedding
from penstock.kernels.experts.reference import experts, pack_experts, restore_experts
from penstock.kernels.kv_cache.contract import KV_DTYPES, KVShape, Part
from penstock.kernels.kv_cache.reference import kv_parts, layer_kv
from penstock.kernels.linear.reference import PACKING, linear, pack_linear, restore_linear
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.reference import norm
from penstock.kernels.packed import Fact, Packing
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.paged_attention.plan import plan_attention
from penstock.kernels.paged_attention.reference import paged_attention
from penstock.kernels.quantization import Matrix
from penstock.kernels.recording import Record, no_recorder
from penstock.kernels.rope_write_kv.reference import rope_write_kv
from penstock.kernels.sampling.contract import Shaping
from penstock.kernels.sampling.reference import argmax, draw, top_logprobs
from penstock.kernels.step_layout import StepLayout

PackedLinear: TypeAlias = Any
PackedExperts: TypeAlias = Any
LayerKV: TypeAlias = Any
AttentionPlan: TypeAlias = Any
Rotation: TypeAlias = tuple[Tensor, Tensor]


class PackLinear(Protocol):
    """The type of `pack_linear`."""

    def __call__(
        self, weight: Matrix, bias: Tensor | None, scheme: str, *, gated: bool = False
    ) -> PackedLinear: ...


class Linear(Protocol):
    """The type of `linear`."""

    def __call__(
        self,
        x: Tensor,
        packed: PackedLinear,
        *,
        norm: Norm | None = None,
        activation: str | None = None,
        residual: Tensor | None = None,
    ) -> Tensor: ...


class PagedAttention(Protocol):
    """The type of `paged_attention`."""

    def __call__(
        self, query: Tensor, cache: LayerKV, plan: AttentionPlan, sinks: Tensor | None = None
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Ops:
    """A complete set of operations; a backend is `replace(REFERENCE, ...)`.

    T tokens, S sequences, H query heads, K key-value heads, D head size, E experts, R rows of
    logits, V tokens of the vocabulary.
    """

    embedding: Callable[[Tensor, Tensor, torch.dtype], Tensor] = embedding
    norm: Callable[[Tensor, Norm], Tensor] = norm
    packing: Packing = PACKING
    """What `pack_linear` and `pack_experts` make, and `restore_*` take."""
    pack_linear: PackLinear = pack_linear
    restore_linear: Callable[[Mapping[str, Fact], Mapping[str, Tensor]], PackedLinear] = (
        restore_linear
    )
    linear: Linear = linear
    kv_dtypes: tuple[str, ...] = KV_DTYPES
    """How this backend can keep keys and values."""
    kv_parts: Callable[[KVShape], Mapping[str, Part]] = kv_parts
    layer_kv: Callable[[KVShape, Mapping[str, Tensor]], LayerKV] = layer_kv
    rope_write_kv: Callable[[Tensor, Norm | None, Rotation | None, LayerKV, Tensor], Tensor] = (
        rope_write_kv
    )
    plan_attention: Callable[[StepLayout, AttentionShape, int], AttentionPlan] = plan_attention
    paged_attention: PagedAttention = paged_attention
    pack_experts: Callable[[list[Matrix], list[Matrix], str], PackedExperts] = pack_experts
    restore_experts: Callable[[Mapping[str, Fact], Mapping[str, Tensor]], PackedExperts] = (
        restore_experts
    )
    experts: Callable[[Tensor, Tensor, PackedExperts, int, str], Tensor] = experts
    recorder: Callable[[], Record | None] = no_recorder
    """What records steps of these operations, in memory of its own."""
    argmax: Callable[[Tensor], Tensor] = argmax
    draw: Callable[[Tensor, Shaping, Tensor], Tensor] = draw
    top_logprobs: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor, Tensor]] = (
        top_logprobs
    )


REFERENCE = Ops()
