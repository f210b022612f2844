"""What a GPU can do, measured with torch's own copy and matrix product."""

import time
from collections.abc import Callable

import torch

_COPIED_BYTES = 256 * 2**20
"""Several times a GPU's second-level cache."""
_SIZE = 4096
"""Rows and columns of matrices: enough to keep all of a GPU's processors at work."""
_TIMES = 8


def measured_limits(device_name: str, dtype: str) -> tuple[float, float] | None:
    """Operations and bytes per second; None if there is too little memory left to measure with."""
    device = torch.device(device_name)
    try:
        return measured_flops(device, getattr(torch, dtype)), measured_bandwidth(device)
    except torch.OutOfMemoryError:
        return None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def measured_bandwidth(device: torch.device, num_bytes: int = _COPIED_BYTES) -> float:
    """Bytes per second that a copy reads and writes, together."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _seconds(lambda: target.copy_(source), device)


def measured_flops(device: torch.device, dtype: torch.dtype, size: int = _SIZE) -> float:
    """Operations per second of a product of square matrices, a multiplication and the addition of
    its product counting as two.
    """
    # Not ones: numbers that never change cost a GPU less power, and it would look faster.
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    return 2 * size**3 / _seconds(lambda: torch.mm(left, right, out=out), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest time of one call, of some rounds of several."""
    rounds = []
    for _ in range(3):
        _wait(device)
        began = time.perf_counter()
        for _ in range(_TIMES):
            work()
        _wait(device)
        rounds.append((time.perf_counter() - began) / _TIMES)
    return min(rounds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
