"""Compile the kernels in Triton for a GPU that need not be there: `python -m
tests.kernels.compile_kernels CAPABILITY`, 80 or 90 for instance.

What the interpreter takes may still be no program for a GPU: names whose type changes, or too much
shared memory. Every operation is called on tensors of the CPU, and where it would launch a kernel,
that is compiled instead, down to the machine's own instructions. Prints the name of each.
"""

import sys
from dataclasses import replace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction

from penstock.kernels.kv_cache.contract import KV_DTYPES
from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import Ops
from penstock.kernels.triton.backend import kernels
from tests.kernels.attention_cases import case
from tests.kernels.paged_cache import empty_cache
from tests.kernels.sampling_cases import shaping

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""What a program may use, by compute capability (CUDA C++ Programming Guide, technical
specifications).
"""
HAS_FP8 = 89
WIDE = (
    ("float32", "float32", 128, (8, 2)),
    ("float32", "int8", 128, (8, 2)),
    ("float32", "float32", 256, (8, 2)),
    ("bfloat16", "bfloat16", 256, (8, 2)),
    ("bfloat16", "float32", 128, (8, 2)),
    ("float16", "float16", 96, (8, 2)),
    ("bfloat16", "bfloat16", 64, (71, 1)),
)
"""Attention that takes much of a program's memory, or is rare: the queries' type, the cache's, the
size of a head, and how many query and key-value heads there are.
"""


class Target:
    """As much of a driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_instead_of_launching(capability: int) -> None:
    """From here on, a launch compiles."""

    def launch(kernel: Any, grid: Any) -> Any:
        def compiled(*args: Any, **options: Any) -> None:
            program = kernel.warmup(*args, grid=grid, **options)
            if program.metadata.shared > SHARED_BYTES[capability]:
                raise MemoryError(f"{kernel.__name__} takes {program.metadata.shared} bytes")
            print(kernel.__name__, program.hash[:12], program.metadata.shared)

        return compiled

    triton.runtime.driver.set_active(Target(capability))
    JITFunction.__getitem__ = launch


def half(*shape: int) -> Tensor:
    return torch.randn(*shape).bfloat16()


def compile_linears(ops: Ops, schemes: list[str], dtype: torch.dtype = torch.bfloat16) -> None:
    x, norm = half(300, 896).to(dtype), Norm("rms", half(896), None, 1e-5)
    ops.embedding(torch.arange(5), x, torch.bfloat16)
    ops.norm(x, norm)
    ops.norm(x, Norm("layer", half(896), half(896), 1e-5))
    for scheme in schemes:
        for rows, gated in ((1, False), (33, True), (300, True)):
            packed = ops.pack_linear(torch.randn(1024, 896), half(1024), scheme, gated=gated)
            residual = half(rows, 512 if gated else 1024).to(dtype)
            around = {"norm": norm, "activation": "silu", "residual": residual}
            ops.linear(x[:rows], packed, **around)
        experts = [[torch.randn(*shape)] * 4 for shape in ((256, 64), (64, 128))]
        packed = ops.pack_experts(*experts, scheme)
        ops.experts(half(9, 64).to(dtype), half(9, 4), packed, 2, "gelu")


def compile_attention(ops: Ops, dtypes: list[str]) -> None:
    for dtype in dtypes:
        for size in (64, 128) if dtype == "bfloat16" else (128,):
            singles = [((1, 300), (1, 40))] * (dtype == "bfloat16")
            for slices in [*singles, ((1, 300), (40, 100))]:
                query, keys, _, layout, shape = case(*slices, heads=(8, 2), size=size)(
                    torch.Generator()
                )
                cache = empty_cache(ops, len(keys), 2, size, dtype=dtype)
                norm = Norm("rms", half(10, size), None, 1e-6)
                turn = torch.randn(2, len(query), size // 2)
                heads = half(len(query), 12, size)
                ops.rope_write_kv(heads, norm, (turn[0], turn[1]), cache, layout.slot_mapping)
                ops.rope_write_kv(heads, None, None, cache, layout.slot_mapping)
                plan = ops.plan_attention(layout, shape, 16)
                ops.paged_attention(query.bfloat16(), cache, plan)
                shape = replace(shape, window=50, key_bias=torch.randn(8, 512))
                plan = replace(plan, shape=shape, num_ranges=3)
                ops.paged_attention(query.bfloat16(), cache, plan)


def compile_wide_attention(ops: Ops) -> None:
    for dtype, kept, size, heads in WIDE:
        for slices in (((1, 300), (1, 40)), ((1, 300), (40, 100))):
            query, keys, _, layout, shape = case(*slices, heads=heads, size=size)(torch.Generator())
            cache = empty_cache(ops, len(keys), heads[1], size, dtype=kept)
            plan = ops.plan_attention(layout, shape, 16)
            ops.paged_attention(query.to(getattr(torch, dtype)), cache, plan)


def compile_caps_and_sinks(ops: Ops) -> None:
    """As Gemma 2 and gpt-oss have them, and both at once; keys in one range and in several."""
    for size, heads, cap, has_sinks in (
        (256, (16, 8), 50.0, False),
        (64, (64, 8), None, True),
        (128, (8, 2), 30.0, True),
    ):
        query, keys, _, layout, shape, *sinks = case(
            *((1, 300), (40, 100)),
            heads=heads,
            size=size,
            window=128,
            soft_cap=cap,
            sinks=has_sinks,
        )(torch.Generator())
        cache = empty_cache(ops, len(keys), heads[1], size, dtype="bfloat16")
        plan = ops.plan_attention(layout, shape, 16)
        for num_ranges in (1, 3):
            cut = replace(plan, num_ranges=num_ranges)
            ops.paged_attention(query.bfloat16(), cache, cut, *sinks)


def compile_sampling(ops: Ops) -> None:
    logits, uniforms = torch.randn(3, 5000), torch.rand(3, dtype=torch.float64)
    ops.argmax(logits)
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    ops.draw(logits, shaping(), uniforms)
    ops.draw(logits, shaping(**{name: [0.5] * 3 for name in names}), uniforms)
    ops.top_logprobs(logits, torch.tensor([1, 2, 3]), 5)


def main() -> None:
    capability = int(sys.argv[1])
    compile_instead_of_launching(capability)
    has_fp8 = capability >= HAS_FP8
    kept = [dtype for dtype in KV_DTYPES if has_fp8 or dtype != "fp8"]
    rounded = ["int8", "int4"] + ["fp8"] * has_fp8
    usual, deterministic = kernels(), kernels(deterministic=True)
    compile_sampling(usual)
    compile_linears(usual, ["bfloat16", *rounded])
    compile_linears(usual, ["int8", "int4"], torch.float16)
    compile_linears(deterministic, ["bfloat16", *rounded])
    compile_linears(deterministic, ["float32"], torch.float32)
    for ops in (usual, deterministic):
        compile_attention(ops, kept)
        compile_wide_attention(ops)
        compile_caps_and_sinks(ops)


if __name__ == "__main__":
    main()
