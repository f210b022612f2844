"""Paged attention against the machine's limits and against torch, all in one run.

`python benchmarks/attention.py --num-threads 2`. Prompts are compared with the multiply-adds the
processor can do, single tokens over long contexts with the bytes it can read; the best of many
short runs counts, since other programs only ever take time away. torch computes one sequence at a
time on contiguous float32 keys and values, which it need not gather.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import penstock.kernels.cpu._native as _native
import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.cpu.backend import cpu_ops
from penstock.kernels.kv_cache.contract import CPU_KV_DTYPES, KVShape
from penstock.kernels.limits.cpu import measured_bandwidth, measured_flops
from penstock.kernels.ops import LayerKV, Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout

BLOCK_SIZE = 16


@dataclass(frozen=True)
class Work:
    """Slices of equal query and context lengths, over heads of one model."""

    name: str
    num_sequences: int
    query_len: int
    context_len: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def flops(self) -> int:
        first = self.context_len - self.query_len + 1
        keys = self.query_len * (first + self.context_len) // 2
        return 4 * self.num_sequences * keys * self.num_heads * self.head_dim

    def num_bytes(self, dtype: str) -> int:
        heads = self.num_sequences * self.context_len * self.num_kv_heads
        item = getattr(torch, dtype).itemsize
        return 2 * heads * (self.head_dim * item + (4 if dtype == "int8" else 0))


QWEN = (14, 2, 64)
LLAMA = (32, 8, 128)
MHA = (16, 16, 64)

PROMPTS = [
    Work("prompt of 512", 1, 512, 512, *QWEN),
    Work("prompt of 1024", 1, 1024, 1024, *QWEN),
    Work("last 128 of 4096", 1, 128, 4096, *QWEN),
    Work("prompt of 512, 32/8 heads of 128", 1, 512, 512, *LLAMA),
    Work("prompt of 512, 16/16 heads of 64", 1, 512, 512, *MHA),
]
SINGLES = [
    Work("64 streams at 300", 64, 1, 300, *QWEN),
    Work("1 stream at 32768", 1, 1, 32768, *QWEN),
    Work("32 streams at 4096", 32, 1, 4096, *QWEN),
    Work("16 streams at 2048, 32/8 heads of 128", 16, 1, 2048, *LLAMA),
    Work("16 streams at 2048, 16/16 heads of 64", 16, 1, 2048, *MHA),
]


def best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of the runs that fit into so many seconds, at least three."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def step(work: Work) -> StepLayout:
    """The layout of a step over blocks that lie scattered."""
    per_sequence = -(-work.context_len // BLOCK_SIZE)
    blocks = torch.randperm(work.num_sequences * per_sequence).view(work.num_sequences, -1)
    lens = [work.query_len] * work.num_sequences
    contexts = [work.context_len] * work.num_sequences
    positions = torch.arange(work.context_len - work.query_len, work.context_len)
    slots = blocks[:, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    return StepLayout(
        positions=positions.repeat(work.num_sequences),
        slot_mapping=slots.flatten(),
        block_table=blocks,
        cu_seqlens_q=torch.tensor([0, *lens]).cumsum(0, dtype=torch.int32),
        context_lens=torch.tensor(contexts, dtype=torch.int32),
        query_lens_host=lens,
        context_lens_host=contexts,
    )


def filled(ops: Ops, work: Work, dtype: str) -> LayerKV:
    """A layer's cache, full of random keys and values."""
    num_blocks = work.num_sequences * -(-work.context_len // BLOCK_SIZE)
    shape = KVShape(
        num_kv_heads=work.num_kv_heads,
        head_dim=work.head_dim,
        block_size=BLOCK_SIZE,
        dtype=dtype,
    )
    parts = {
        name: torch.zeros(num_blocks, *part.shape, dtype=part.dtype)
        for name, part in ops.kv_parts(shape).items()
    }
    cache = ops.layer_kv(shape, parts)
    heads = torch.randn(num_blocks * BLOCK_SIZE, 3 * work.num_kv_heads, work.head_dim)
    ops.rope_write_kv(heads, None, None, cache, torch.arange(len(heads)))
    return cache


def ours(ops: Ops, work: Work, dtype: str, seconds: float) -> float:
    """Seconds that paged attention takes, without its plan, which all layers share."""
    layout, cache = step(work), filled(ops, work, dtype)
    shape = AttentionShape(
        num_heads=work.num_heads,
        num_kv_heads=work.num_kv_heads,
        head_dim=work.head_dim,
        scale=work.head_dim**-0.5,
    )
    plan = ops.plan_attention(layout, shape, BLOCK_SIZE)
    query = torch.randn(len(layout.positions), work.num_heads, work.head_dim)
    return best(lambda: ops.paged_attention(query, cache, plan), seconds)


def torchs(work: Work, seconds: float) -> float:
    """Seconds that torch's attention takes for the same."""
    query = torch.randn(1, work.num_heads, work.query_len, work.head_dim)
    caches = torch.randn(
        work.num_sequences, 2, 1, work.num_kv_heads, work.context_len, work.head_dim
    )
    causal = work.query_len == work.context_len and work.query_len > 1
    mask = None if causal or work.query_len == 1 else _mask(work)

    def run() -> Tensor:
        out = query
        for key, value in caches:
            out = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=True
            )
        return out

    return best(run, seconds)


def _mask(work: Work) -> Tensor:
    queries = torch.arange(work.context_len - work.query_len, work.context_len)
    return torch.arange(work.context_len) <= queries[:, None]


def main() -> None:
    """Print a line for every kind of work and type of cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="for every line")
    parser.add_argument("--dtypes", nargs="+", default=list(CPU_KV_DTYPES), choices=CPU_KV_DTYPES)
    parser.add_argument("--only", default="", help="work whose name contains this")
    args = parser.parse_args()
    ops, notes = cpu_ops(args.num_threads)
    torch.set_num_threads(args.num_threads)
    flops, bandwidth = measured_flops(), measured_bandwidth()
    print(notes[0], f"{flops / 1e9:.0f} GFLOPS float32, {bandwidth / 1e9:.1f} GB/s.")
    for work in PROMPTS + SINGLES:
        if args.only not in work.name:
            continue
        theirs = torchs(work, args.seconds)
        for dtype in args.dtypes:
            taken = ours(ops, work, dtype, args.seconds)
            print(
                f"{work.name:40} {dtype:9} {taken * 1e3:8.3f} ms"
                f"  {work.flops / taken / flops:6.1%} of arithmetic"
                f"  {work.num_bytes(dtype) / taken / bandwidth:6.1%} of bandwidth"
                f"  {theirs / taken:5.1f} x torch",
                flush=True,
            )
    print(f"On {_native.isa()}; torch {torch.__version__}.")


if __name__ == "__main__":
    main()
