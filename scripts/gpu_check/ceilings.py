"""What the machine can do, through torch: what everything else is held against."""

from typing import Any

import torch

from scripts.gpu_check.timing import seconds

SIZE = 8192
COPY_BYTES = 2**32


def run(deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """Bytes per second of a copy, read and written; operations per second of matrix products."""
    found: dict[str, Any] = {"copy_bytes_per_s": _copy(), "bf16_flops": _bf16()}
    if torch.cuda.get_device_capability() >= (9, 0):
        found["fp8_flops"] = _fp8()
    summary = {
        "copy, TB/s read and written": f"{found['copy_bytes_per_s'] / 1e12:.2f}",
        "bf16 matmul, TFLOP/s": f"{found['bf16_flops'] / 1e12:.0f}",
        "fp8 matmul, TFLOP/s": f"{found.get('fp8_flops', 0) / 1e12:.0f}",
    }
    return found | {"summary": summary}


def _copy() -> float:
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / seconds(lambda: target.copy_(source))


def _bf16() -> float:
    left, right = torch.randn(2, SIZE, SIZE, device="cuda", dtype=torch.bfloat16)
    return 2 * SIZE**3 / seconds(lambda: left @ right)


def _fp8() -> float:
    left, right = torch.randn(2, SIZE, SIZE, device="cuda").to(torch.float8_e4m3fn)
    ones = torch.ones(SIZE, 1, device="cuda")

    def multiply() -> torch.Tensor:
        return torch._scaled_mm(
            left, right.T, scale_a=ones, scale_b=ones.T, out_dtype=torch.bfloat16
        )

    return 2 * SIZE**3 / seconds(multiply)
