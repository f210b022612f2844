"""Seconds that work takes on the device."""

import time
from collections.abc import Callable

import torch

from scripts.gpu_check.part import Scale


def seconds(
    work: Callable[[], object], scale: Scale, *, repeats: int | None = None, warmup: int = 3
) -> float:
    """The median time of one call, by the device's clock, with cold second-level caches."""
    repeats = min(scale.repeats, repeats or scale.repeats)
    if not scale.is_gpu:
        return _seconds_on_a_cpu(work)
    flush = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    for _ in range(warmup):
        work()
    times: list[float] = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2]


def _seconds_on_a_cpu(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
