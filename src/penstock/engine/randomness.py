"""Random numbers that depend on nothing but (seed, index, position).

So the same request gives the same text alone or in company, today or after a preemption, on any
device.
"""

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

_Words = npt.NDArray[np.uint64]


def uniforms(
    seeds: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), [R], for keys [R].

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied once per key so that neighbouring keys
    give unrelated numbers. 64-bit arithmetic wraps around.
    """
    state = _mix(seeds.view(np.uint64) + _GOLDEN)
    state = _mix((state ^ indices.view(np.uint64)) + _GOLDEN)
    state = _mix((state ^ positions.view(np.uint64)) + _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: _Words) -> _Words:
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))
