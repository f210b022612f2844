"""Attention and linears of Llama-3-8B's shape against the machine's ceilings."""

from functools import partial

import torch

from penstock.kernels.kv_cache.contract import KVShape
from penstock.kernels.ops import Ops
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from scripts.gpu_check.part import Part, Scale
from scripts.gpu_check.timing import seconds

BLOCK = 16


def run(part: Part) -> None:
    """Rates, and their shares of what `ceilings` measured."""
    from penstock.kernels.triton.backend import FP8_CAPABILITY, kernels

    has_fp8 = part.scale.capability >= FP8_CAPABILITY
    ops = kernels(has_fp8=has_fp8)
    _time_attention(part, ops, ["bfloat16", "int8", *["fp8"] * has_fp8])
    for scheme in ("bfloat16", "int8", "int4", *["fp8"] * has_fp8):
        _time_linears(part, ops, scheme)


def _time_attention(part: Part, ops: Ops, dtypes: list[str]) -> None:
    scale, ceilings = part.scale, part.report.get("ceilings", {})
    (heads, kv_heads, size), count, length = scale.heads, scale.num_singles, scale.context_len
    for dtype in dtypes:
        num_bytes = 2 * count * length * kv_heads * size * (2 if dtype == "bfloat16" else 1)
        rate = num_bytes / _attention(ops, scale, (count, 1, length), dtype)
        part.figures[f"attention_bytes_per_s_{dtype}"] = rate
        label = f"attention, {count} x {length:,} of {dtype}, TB/s"
        part.summary[label] = _share(rate, ceilings.get("copy_bytes_per_s"), 1e12)
    multiplied = 4 * heads * size * length**2 / 2
    rate = multiplied / _attention(ops, scale, (1, length, length), "bfloat16")
    part.figures["attention_prompt_flops"] = rate
    label = f"attention, prompt of {length:,}, TFLOP/s"
    part.summary[label] = _share(rate, ceilings.get("bf16_flops"), 1e12)


def _time_linears(part: Part, ops: Ops, scheme: str) -> None:
    ceilings, rows = part.report.get("ceilings", {}), part.scale.rows
    found = _linears(ops, scheme, part.scale)
    part.figures[f"linear_{scheme}"] = found
    part.summary[f"linear {scheme}, {rows[0]} row, TB/s"] = _share(
        found[rows[0]]["bytes_per_s"], ceilings.get("copy_bytes_per_s"), 1e12
    )
    part.summary[f"linear {scheme}, {rows[-1]:,} rows, TFLOP/s"] = _share(
        found[rows[-1]]["flops"], ceilings.get("bf16_flops"), 1e12
    )


def _share(rate: float, ceiling: float | None, unit: float) -> str:
    share = f" ({rate / ceiling:.0%})" if ceiling else ""
    return f"{rate / unit:.2f}{share}"


def _attention(ops: Ops, scale: Scale, step: tuple[int, int, int], dtype: str) -> float:
    """Seconds that attention takes in a step of so many slices, of so long ones and contexts."""
    (num_heads, kv_heads, size), device = scale.heads, scale.device
    count, query_len, context_len = step
    per_sequence = context_len // BLOCK
    shape = KVShape(num_kv_heads=kv_heads, head_dim=size, block_size=BLOCK, dtype=dtype)
    blocks = torch.randperm(count * per_sequence, device=device).view(count, per_sequence)
    parts = {
        name: torch.zeros(count * per_sequence, *part.shape, dtype=part.dtype, device=device)
        for name, part in ops.kv_parts(shape).items()
    }
    cache = ops.layer_kv(shape, parts)
    positions = torch.arange(context_len - query_len, context_len, device=device).repeat(count)
    layout = StepLayout(
        positions=positions,
        slot_mapping=positions,
        block_table=blocks,
        cu_seqlens_q=torch.arange(count + 1, device=device, dtype=torch.int32) * query_len,
        context_lens=torch.full((count,), context_len, device=device, dtype=torch.int32),
        query_lens_host=[query_len] * count,
        context_lens_host=[context_len] * count,
    )
    heads = AttentionShape(
        num_heads=num_heads, num_kv_heads=kv_heads, head_dim=size, scale=size**-0.5
    )
    plan = ops.plan_attention(layout, heads, BLOCK)
    query = torch.randn(count * query_len, num_heads, size, device=device, dtype=torch.bfloat16)
    return seconds(lambda: ops.paged_attention(query, cache, plan), scale)


def _linears(ops: Ops, scheme: str, scale: Scale) -> dict[int, dict[str, float]]:
    """Of an MLP's first linear, for every number of rows."""
    (width, inner), device = scale.mlp, scale.device
    weight = torch.randn(2 * inner, width, device=device) / width**0.5
    packed = ops.pack_linear(weight, None, scheme, gated=True)
    num_bytes = sum(part.nbytes for part in packed.parts().values())
    found = {}
    for rows in scale.rows:
        x = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
        elapsed = seconds(partial(ops.linear, x, packed, activation="silu"), scale, repeats=10)
        found[rows] = {
            "bytes_per_s": num_bytes / elapsed,
            "flops": 4 * rows * width * inner / elapsed,
        }
    return found
