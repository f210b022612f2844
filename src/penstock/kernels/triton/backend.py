"""A GPU's operations: those of the reference, replaced where a kernel stands in Triton."""

from dataclasses import fields, replace
from functools import partial

import torch

try:
    from penstock.kernels.embedding.triton import embedding
    from penstock.kernels.experts.triton import experts, pack_experts, restore_experts
    from penstock.kernels.kv_cache.triton import kv_parts, layer_kv
    from penstock.kernels.linear.triton import PACKING, linear, pack_linear, restore_linear
    from penstock.kernels.norm.triton import norm
    from penstock.kernels.paged_attention.triton import paged_attention, plan_attention
    from penstock.kernels.rope_write_kv.triton import rope_write_kv
    from penstock.kernels.sampling.triton import argmax, draw, top_logprobs
except ModuleNotFoundError as error:
    raise ImportError("Triton is missing; pip install 'penstock[cuda]'") from error

from penstock.kernels.kv_cache.contract import KV_DTYPES
from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.triton.recording import record

OLDEST_CAPABILITY = (8, 0)
"""Compute capability from which on the kernels' types and products exist: Ampere's."""
FP8_CAPABILITY = (8, 9)
"""Likewise for floats of eight bits: Ada's."""
UNTESTED_ON_AMD = (
    "AMD's GPUs are untested: the same sources are compiled for them, and nobody has tried."
)
_NO_COMPUTATION = {"kv_dtypes", "packing", "recorder"}


def triton_ops(device: torch.device, *, deterministic: bool) -> tuple[Ops, list[str]]:
    """The operations for a GPU, and what to say of them. Raises ImportError for one that is too
    old, or without Triton.
    """
    capability = torch.cuda.get_device_capability(device)
    is_amd = torch.version.hip is not None
    if not is_amd and capability < OLDEST_CAPABILITY:
        found, oldest = (".".join(map(str, each)) for each in (capability, OLDEST_CAPABILITY))
        raise ImportError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found}, and Penstock's "
            f"kernels take {oldest} or above"
        )
    # AMD's floats of eight bits are others on some GPUs, and its numbers mean other generations.
    has_fp8 = not is_amd and capability >= FP8_CAPABILITY
    ops = replace(kernels(has_fp8=has_fp8, deterministic=deterministic), recorder=lambda: record)
    notes = [f"Kernels: Penstock's own in Triton, on {device}.", *_gaps(ops)]
    return ops, [*notes, UNTESTED_ON_AMD] if is_amd else notes


def kernels(*, has_fp8: bool = True, deterministic: bool = False) -> Ops:
    """The operations, on whatever device their tensors are. With deterministic, all sums have one
    order: the other operations have but one anyway.
    """
    return replace(
        REFERENCE,
        embedding=embedding,
        norm=norm,
        packing=PACKING,
        pack_linear=pack_linear,
        restore_linear=restore_linear,
        linear=partial(linear, deterministic=deterministic),
        kv_dtypes=tuple(dtype for dtype in KV_DTYPES if has_fp8 or dtype != "fp8"),
        kv_parts=kv_parts,
        layer_kv=layer_kv,
        rope_write_kv=rope_write_kv,
        plan_attention=partial(plan_attention, deterministic=deterministic),
        paged_attention=paged_attention,
        pack_experts=pack_experts,
        restore_experts=restore_experts,
        experts=partial(experts, deterministic=deterministic),
        argmax=argmax,
        draw=draw,
        top_logprobs=top_logprobs,
    )


def _gaps(ops: Ops) -> list[str]:
    """What the reference still does."""
    names = [field.name for field in fields(Ops) if field.name not in _NO_COMPUTATION]
    missing = [name for name in names if getattr(ops, name) is getattr(REFERENCE, name)]
    return [f"The torch reference computes: {', '.join(missing)}."] if missing else []
