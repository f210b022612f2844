"""The CPU's operations: those of the reference, replaced where a kernel stands in C++."""

import os
from dataclasses import fields, replace

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.recording import Recorder
from penstock.kernels.embedding.cpu import embedding
from penstock.kernels.experts.cpu import experts, pack_experts, restore_experts
from penstock.kernels.kv_cache.contract import CPU_KV_DTYPES
from penstock.kernels.kv_cache.cpu import kv_parts, layer_kv
from penstock.kernels.linear.cpu import LAYOUT_VERSION, linear, pack_linear, restore_linear
from penstock.kernels.norm.cpu import norm
from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.packed import Packing
from penstock.kernels.paged_attention.cpu import paged_attention, plan_attention
from penstock.kernels.rope_write_kv.cpu import rope_write_kv
from penstock.kernels.sampling.cpu import argmax, draw, top_logprobs

ISA_VARIABLE = "PENSTOCK_ISA"
"""Environment variable that names the instruction set to use, for tests and comparisons."""


def cpu_ops(num_threads: int) -> tuple[Ops, list[str]]:
    """Make the kernels ready to compute on so many threads; the operations, and what to say of
    them. Raises ImportError where none were built for this processor.
    """
    usable = _native.usable_isas()
    if not usable:
        raise ImportError("this processor lacks AVX2")
    isa = os.environ.get(ISA_VARIABLE) or usable[-1]
    if isa not in usable:
        raise ImportError(f"{ISA_VARIABLE}={isa} is not among {', '.join(usable)}")
    _native.use_isa(isa)
    _native.set_num_threads(num_threads)
    _native.keep_freed_memory()
    ops = kernels()
    threads = "1 thread" if num_threads == 1 else f"{num_threads} threads"
    return ops, [f"Kernels: Penstock's own for {isa.replace('_', '-')}, {threads}.", *_gaps(ops)]


def kernels() -> Ops:
    """The operations, on whatever instruction set and threads are in use."""
    return replace(
        REFERENCE,
        norm=norm,
        packing=Packing(_native.isa(), LAYOUT_VERSION),
        pack_linear=pack_linear,
        restore_linear=restore_linear,
        linear=linear,
        kv_dtypes=CPU_KV_DTYPES,
        kv_parts=kv_parts,
        layer_kv=layer_kv,
        rope_write_kv=rope_write_kv,
        plan_attention=plan_attention,
        paged_attention=paged_attention,
        recorder=Recorder,
        embedding=embedding,
        argmax=argmax,
        draw=draw,
        top_logprobs=top_logprobs,
        pack_experts=pack_experts,
        restore_experts=restore_experts,
        experts=experts,
    )


def _gaps(ops: Ops) -> list[str]:
    """What the reference still does."""
    names = [field.name for field in fields(Ops)]
    missing = [name for name in names if getattr(ops, name) is getattr(REFERENCE, name)]
    return [f"The torch reference computes: {', '.join(missing)}."] if missing else []
