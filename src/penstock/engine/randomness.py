"""Random numbers that depend on nothing but (seed, index, position).

So the same request gives the same text alone or in company, today or after a preemption, on any
device.
"""

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def uniforms(seeds: Tensor, indices: Tensor, positions: Tensor) -> Tensor:
    """Numbers in [0, 1), float64 [R], for int64 keys [R].

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied once per key so that neighbouring keys
    give unrelated numbers. 64-bit arithmetic wraps around, on every device alike.
    """
    state = _mix(seeds + _GOLDEN)
    state = _mix((state ^ indices) + _GOLDEN)
    state = _mix((state ^ positions) + _GOLDEN)
    return _shift(state, 11).double() * 2.0**-53


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, count: int) -> Tensor:
    """Shift right as an unsigned number: torch's own shift copies the sign."""
    return torch.bitwise_and(x >> count, (1 << (64 - count)) - 1)
