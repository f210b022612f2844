"""The processor's measured limits: how fast all threads together multiply and add, and read."""

import time
from collections.abc import Callable

import torch

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address

REPEATS = 7
"""The best of so many runs counts: other programs only ever take time away."""


def measured_flops() -> float:
    """float32 operations per second in multiply-adds on registers, all threads together."""
    count = 12 * 500_000
    seconds = _best(lambda: _native.multiply_add(count))
    lanes: int = _native.lanes() * _native.num_threads()
    return 2 * count * lanes / seconds


def measured_bandwidth(num_bytes: int = 1 << 28) -> float:
    """Bytes per second that all threads together read from memory, of far more than a cache
    holds.
    """
    memory = torch.ones(num_bytes // 256 * 64)
    where, count = address(memory, "memory"), memory.numel()
    return memory.nbytes / _best(lambda: _native.read_memory(where, count))


def _best(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
