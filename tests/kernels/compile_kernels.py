"""Compile the kernels in Triton for a GPU that need not be there: `python -m
tests.kernels.compile_kernels CAPABILITY`, 80 or 90 for instance.

What the interpreter takes may still be no program for a GPU: names whose type changes, or too much
shared memory. Every operation is called on tensors of the CPU, and where it would launch a kernel,
that is compiled instead, down to the machine's own instructions. Prints the name of each.
"""

import sys
from dataclasses import dataclass, replace
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

SHARED_BYTES = {80: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""What a program may use, by compute capability (CUDA C++ Programming Guide, technical
specifications). 8.0 has 163 KiB, but the same program runs on 8.6, which has 99.
"""
HAS_FP8 = 89
ONLY_FP8 = 89
"""Compute capability that differs from the one before in floats of eight bits alone."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A kind of attention: what its program is compiled for."""

    query: str = "bfloat16"
    kept: str = "bfloat16"
    size: int = 128
    heads: tuple[int, int] = (8, 2)
    slices: tuple[tuple[int, int], ...] = ((1, 300), (40, 100))
    window: int | None = None
    biased: bool = False
    soft_cap: float | None = None
    sinks: bool = False
    num_ranges: int = 1


_EVERY_TYPE = [Attention(kept=dtype) for dtype in KV_DTYPES]
_MUCH_MEMORY = [
    Attention(query="float32", kept="float32", size=256),
    Attention(size=64, heads=(71, 1)),
]
USUAL = [
    *_EVERY_TYPE,
    *_MUCH_MEMORY,
    Attention(slices=((1, 300), (1, 40))),
    Attention(size=64),
    Attention(size=256),
    Attention(query="float32", kept="float32"),
    Attention(query="float32", kept="int8"),
    Attention(query="float16", kept="float16", size=96),
    *(
        Attention(kept=dtype, window=50, biased=True, num_ranges=3)
        for dtype in ("float32", "bfloat16", "int8")
    ),
    # Gemma 2's, gpt-oss's, and both at once
    Attention(size=256, heads=(16, 8), window=128, soft_cap=50.0),
    Attention(size=64, heads=(64, 8), window=128, sinks=True),
    Attention(window=128, soft_cap=30.0, sinks=True, num_ranges=3),
]
DETERMINISTIC = [
    *_EVERY_TYPE,
    *_MUCH_MEMORY,
    Attention(window=50, biased=True, num_ranges=3),
    Attention(window=128, soft_cap=30.0, sinks=True, num_ranges=3),
]


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


def compile_rows(ops: Ops, dtype: torch.dtype = torch.bfloat16) -> None:
    """What takes rows of activations, but for products."""
    x = half(5, 896).to(dtype)
    ops.embedding(torch.arange(5), x, dtype)
    ops.norm(x, Norm("rms", half(896), None, 1e-5))
    ops.norm(x, Norm("layer", half(896), half(896), 1e-5))


def compile_linear(ops: Ops, scheme: str, dtype: torch.dtype = torch.bfloat16) -> None:
    """In tiles for few rows, for some and for many, with all that may surround it."""
    x, norm = half(300, 896).to(dtype), Norm("rms", half(896), None, 1e-5)
    for rows, gated in ((1, False), (33, True), (300, True)):
        packed = ops.pack_linear(torch.randn(1024, 896), half(1024), scheme, gated=gated)
        residual = half(rows, 512 if gated else 1024).to(dtype)
        ops.linear(x[:rows], packed, norm=norm, activation="silu", residual=residual)


def compile_experts(ops: Ops, scheme: str, dtype: torch.dtype = torch.bfloat16) -> None:
    matrices = [[torch.randn(*shape)] * 4 for shape in ((256, 64), (64, 128))]
    packed = ops.pack_experts(*matrices, scheme)
    ops.experts(half(9, 64).to(dtype), half(9, 4), packed, 2, "gelu")


def compile_writing(ops: Ops, kept: str, size: int = 128) -> None:
    """Heads on their way into a cache: normalised and turned, or as they are."""
    cache, slots = empty_cache(ops, 1, 2, size, dtype=kept), torch.arange(3)
    heads, turn = half(3, 12, size), torch.randn(2, 3, size // 2)
    norm = Norm("rms", half(10, size), None, 1e-6)
    ops.rope_write_kv(heads, norm, (turn[0], turn[1]), cache, slots)
    ops.rope_write_kv(heads, None, None, cache, slots)


def compile_attention(ops: Ops, kind: Attention) -> None:
    query, keys, _, layout, shape, *sinks = case(
        *kind.slices,
        heads=kind.heads,
        size=kind.size,
        window=kind.window,
        biased=kind.biased,
        soft_cap=kind.soft_cap,
        sinks=kind.sinks,
    )(torch.Generator())
    cache = empty_cache(ops, len(keys), kind.heads[1], kind.size, dtype=kind.kept)
    plan = replace(ops.plan_attention(layout, shape, 16), num_ranges=kind.num_ranges)
    ops.paged_attention(query.to(getattr(torch, kind.query)), cache, plan, *sinks)


def compile_sampling(ops: Ops) -> None:
    logits, uniforms = torch.randn(3, 5000), torch.rand(3, dtype=torch.float64)
    ops.argmax(logits)
    names = ("temperature", "top_k", "top_p", "min_p", "typical_p")
    ops.draw(logits, shaping(), uniforms)
    ops.draw(logits, shaping(**{name: [0.5] * 3 for name in names}), uniforms)
    ops.top_logprobs(logits, torch.tensor([1, 2, 3]), 5)


def compile_fp8(usual: Ops, deterministic: Ops) -> None:
    compile_linear(usual, "fp8")
    compile_experts(usual, "fp8")
    compile_writing(usual, "fp8")
    compile_attention(usual, Attention(kept="fp8"))
    compile_attention(deterministic, Attention(kept="fp8"))


def compile_all_but_fp8(usual: Ops, deterministic: Ops) -> None:
    """Deterministic linears of rounded weights have a tile that usual ones have too."""
    compile_sampling(usual)
    compile_rows(usual)
    for scheme in ("bfloat16", "int8", "int4"):
        compile_linear(usual, scheme)
        compile_experts(usual, scheme)
    compile_linear(usual, "int4", torch.float16)
    compile_experts(usual, "int8", torch.float16)
    compile_linear(deterministic, "bfloat16")
    compile_experts(deterministic, "bfloat16")
    compile_linear(deterministic, "float32", torch.float32)
    compile_writing(usual, "bfloat16", 64)
    for dtype in KV_DTYPES:
        if dtype != "fp8":
            compile_writing(usual, dtype)
    for ops, kinds in ((usual, USUAL), (deterministic, DETERMINISTIC)):
        for kind in kinds:
            if kind.kept != "fp8":
                compile_attention(ops, kind)


def main() -> None:
    capability = int(sys.argv[1])
    compile_instead_of_launching(capability)
    usual, deterministic = kernels(), kernels(deterministic=True)
    if capability >= HAS_FP8:
        compile_fp8(usual, deterministic)
    if capability != ONLY_FP8:
        compile_all_but_fp8(usual, deterministic)


if __name__ == "__main__":
    main()
