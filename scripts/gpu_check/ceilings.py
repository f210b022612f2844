"""What the machine can do, through torch: what everything else is held against."""

import torch

from penstock.engine.gpu_limits import measured_bandwidth, measured_flops
from scripts.gpu_check.part import Part, Scale
from scripts.gpu_check.timing import seconds


def run(part: Part) -> None:
    """Bytes per second of a copy, read and written; operations per second of matrix products."""
    scale, device = part.scale, torch.device(part.scale.device)
    part.figures["copy_bytes_per_s"] = copied = measured_bandwidth(device, scale.copied_bytes)
    part.summary["copy, TB/s read and written"] = f"{copied / 1e12:.2f}"
    part.figures["bf16_flops"] = flops = measured_flops(device, torch.bfloat16, scale.product)
    part.summary["bf16 matmul, TFLOP/s"] = f"{flops / 1e12:.0f}"
    if scale.capability >= (9, 0):
        part.figures["fp8_flops"] = flops = _fp8(scale)
        part.summary["fp8 matmul, TFLOP/s"] = f"{flops / 1e12:.0f}"


def _fp8(scale: Scale) -> float:
    size = scale.product
    left, right = torch.randn(2, size, size, device=scale.device).to(torch.float8_e4m3fn)
    ones = torch.ones(size, 1, device=scale.device)

    def multiply() -> torch.Tensor:
        return torch._scaled_mm(
            left, right.T, scale_a=ones, scale_b=ones.T, out_dtype=torch.bfloat16
        )

    return 2 * size**3 / seconds(multiply, scale)
