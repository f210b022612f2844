"""The processor's measured limits: how fast all threads together multiply and add, and read."""

import time
from collections.abc import Callable

import torch

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address

REPEATS = 7
"""The best of so many runs counts: other programs only ever take time away."""


TURNS = 500_000
"""A few milliseconds of arithmetic."""


def measured_flops() -> float:
    """float32 operations per second in multiply-adds on registers, all threads together."""
    return 2 * _best_rate(lambda: _native.multiply_floats(TURNS))


def measured_int8_ops() -> float:
    """int8 operations per second in multiply-adds into int32 on registers, likewise."""
    return 2 * _best_rate(lambda: _native.multiply_int8(TURNS))


def measured_bandwidth(num_bytes: int = 1 << 28) -> float:
    """Bytes per second that all threads together read from memory, of far more than a cache
    holds.
    """
    memory = torch.ones(num_bytes // 256 * 64)
    where, count = address(memory, "memory"), memory.numel()
    return _best_rate(lambda: _native.read_memory(where, count))


def _best_rate(work: Callable[[], int]) -> float:
    """How much work is done in a second, where it says how much it did."""
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - start))
    return max(rates)
