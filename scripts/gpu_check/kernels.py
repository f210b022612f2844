"""Attention and linears of Llama-3-8B's shape against the machine's ceilings."""

from functools import partial
from typing import Any

import torch

from penstock.kernels.kv_cache.contract import KVShape
from penstock.kernels.ops import Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from scripts.gpu_check.timing import seconds

HEADS, KV_HEADS, SIZE, BLOCK = 32, 8, 128, 16
WIDTH, INNER = 4096, 14336
SINGLES = (64, 1, 4096)
PROMPT = (1, 4096, 4096)


def run(deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """Rates, and their shares of what `ceilings` measured."""
    from penstock.kernels.triton.backend import FP8_CAPABILITY, kernels

    has_fp8 = torch.cuda.get_device_capability() >= FP8_CAPABILITY
    ops = kernels(has_fp8=has_fp8)
    ceilings = report.get("ceilings", {})
    bandwidth, flops = ceilings.get("copy_bytes_per_s"), ceilings.get("bf16_flops")
    found: dict[str, Any] = {}
    summary: dict[str, str] = {}
    for dtype in ("bfloat16", "int8", *["fp8"] * has_fp8):
        num_bytes = (
            2 * SINGLES[0] * SINGLES[2] * KV_HEADS * SIZE * (2 if dtype == "bfloat16" else 1)
        )
        rate = num_bytes / _attention(ops, *SINGLES, dtype)
        found[f"attention_bytes_per_s_{dtype}"] = rate
        label = f"attention, 64 x 4,096 of {dtype}, TB/s"
        summary[label] = _share(rate, bandwidth, 1e12)
    multiplied = 4 * HEADS * SIZE * PROMPT[1] ** 2 / 2
    found["attention_prompt_flops"] = multiplied / _attention(ops, *PROMPT, "bfloat16")
    summary["attention, prompt of 4,096, TFLOP/s"] = _share(
        found["attention_prompt_flops"], flops, 1e12
    )
    for scheme in ("bfloat16", "int8", "int4", *["fp8"] * has_fp8):
        found[f"linear_{scheme}"] = _linears(ops, scheme)
        one, many = found[f"linear_{scheme}"][1], found[f"linear_{scheme}"][4096]
        summary[f"linear {scheme}, 1 row, TB/s"] = _share(one["bytes_per_s"], bandwidth, 1e12)
        summary[f"linear {scheme}, 4,096 rows, TFLOP/s"] = _share(many["flops"], flops, 1e12)
    return found | {"summary": summary}


def _share(rate: float, ceiling: float | None, unit: float) -> str:
    share = f" ({rate / ceiling:.0%})" if ceiling else ""
    return f"{rate / unit:.2f}{share}"


def _attention(ops: Ops, count: int, query_len: int, context_len: int, dtype: str) -> float:
    per_sequence = context_len // BLOCK
    shape = KVShape(num_kv_heads=KV_HEADS, head_dim=SIZE, block_size=BLOCK, dtype=dtype)
    blocks = torch.randperm(count * per_sequence, device="cuda").view(count, per_sequence)
    parts = {
        name: torch.zeros(count * per_sequence, *part.shape, dtype=part.dtype, device="cuda")
        for name, part in ops.kv_parts(shape).items()
    }
    cache = ops.layer_kv(shape, parts)
    positions = torch.arange(context_len - query_len, context_len, device="cuda").repeat(count)
    layout = StepLayout(
        positions=positions,
        slot_mapping=positions,
        block_table=blocks,
        cu_seqlens_q=torch.arange(count + 1, device="cuda", dtype=torch.int32) * query_len,
        context_lens=torch.full((count,), context_len, device="cuda", dtype=torch.int32),
        query_lens_host=[query_len] * count,
        context_lens_host=[context_len] * count,
    )
    heads = AttentionShape(num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=SIZE, scale=SIZE**-0.5)
    plan = ops.plan_attention(layout, heads, BLOCK)
    query = torch.randn(count * query_len, HEADS, SIZE, device="cuda", dtype=torch.bfloat16)
    return seconds(lambda: ops.paged_attention(query, cache, plan))


def _linears(ops: Ops, scheme: str) -> dict[int, dict[str, float]]:
    weight = torch.randn(2 * INNER, WIDTH, device="cuda") / WIDTH**0.5
    packed = ops.pack_linear(weight, None, scheme, gated=True)
    num_bytes = sum(part.nbytes for part in packed.parts().values())
    found = {}
    for rows in (1, 16, 64, 512, 4096):
        x = torch.randn(rows, WIDTH, device="cuda", dtype=torch.bfloat16)
        elapsed = seconds(partial(ops.linear, x, packed, activation="silu"), repeats=10)
        found[rows] = {
            "bytes_per_s": num_bytes / elapsed,
            "flops": 4 * rows * WIDTH * INNER / elapsed,
        }
    return found
