"""Linears against the machine's limits and against torch, all in one run.

`python benchmarks/linear.py --num-threads 2`. Many rows are compared with the multiply-adds the
processor can do, one row with the bytes it can read; the best of many short runs counts, since
other programs only ever take time away. torch multiplies float32 matrices on as many threads.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import penstock.kernels.cpu._native as _native
import torch
from torch.nn import functional

from penstock.kernels.cpu.backend import cpu_ops
from penstock.kernels.limits.cpu import measured_bandwidth, measured_flops, measured_int8_ops
from penstock.kernels.ops import Ops

SCHEMES = ("int8", "int4", "bfloat16", "float32")
ROWS = (1, 6, 16, 64, 512)


@dataclass(frozen=True)
class Matrix:
    """One linear of a model, by its sizes."""

    name: str
    in_features: int
    out_features: int
    gated: bool = False


QWEN = [
    Matrix("qkv", 896, 1152),
    Matrix("out", 896, 896),
    Matrix("gate and up", 896, 9728, gated=True),
    Matrix("down", 4864, 896),
    Matrix("head", 896, 151936),
]


def best(work: Callable[[], object], seconds: float) -> float:
    """The shortest of the runs that fit into so many seconds, at least three."""
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def packed_bytes(scheme: str, weight: torch.Tensor) -> float:
    """What a packed weight takes: in int4 a scale of 16 bits for every 32 inputs."""
    return weight.numel() * {"int8": 1.0, "int4": 0.5625, "bfloat16": 2.0, "float32": 4.0}[scheme]


def measure(
    ops: Ops, matrix: Matrix, scheme: str, limits: dict[str, float], seconds: float
) -> None:
    weight = torch.randn(matrix.out_features, matrix.in_features).bfloat16()
    start = time.perf_counter()
    packed = ops.pack_linear(weight, None, scheme, gated=matrix.gated)
    packing = weight.nbytes / (time.perf_counter() - start)
    line = f"{scheme:9} {matrix.name:12} packed at {packing / 1e9:4.1f} GB/s |"
    kind = "silu" if matrix.gated else None
    peak = limits["int8"] if scheme.startswith("int") else limits["float32"]
    for rows in ROWS:
        if matrix.out_features > 100_000 and rows > 64:
            continue
        x = torch.randn(rows, matrix.in_features)
        took = best(lambda x=x: ops.linear(x, packed, activation=kind), seconds)  # type: ignore[misc]
        ops_done = 2 * rows * weight.numel()
        if rows == 1:
            share = packed_bytes(scheme, weight) / took / limits["bandwidth"]
            line += f" 1: {1e6 * took:6.0f} us, {share:4.0%} of reading |"
        else:
            line += f" {rows}: {ops_done / took / 1e9:4.0f} G ({ops_done / took / peak:3.0%})"
    print(line, flush=True)


def measure_torch(matrix: Matrix, seconds: float) -> None:
    weight, line = torch.randn(matrix.out_features, matrix.in_features), f"torch {matrix.name:12}:"
    for rows in (1, 64, 512):
        x = torch.randn(rows, matrix.in_features)
        took = best(lambda x=x: functional.linear(x, weight), seconds)  # type: ignore[misc]
        line += f" {rows}: {2 * rows * weight.numel() / took / 1e9:4.0f} G"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.3, help="for each measurement")
    parser.add_argument("--isa", choices=_native.usable_isas(), help="default: the best there is")
    parser.add_argument("--schemes", nargs="*", choices=SCHEMES, default=SCHEMES)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ops, notices = cpu_ops(arguments.num_threads)
    if arguments.isa:
        _native.use_isa(arguments.isa)
    limits = {
        "float32": measured_flops(),
        "int8": measured_int8_ops(),
        "bandwidth": measured_bandwidth(),
    }
    print(*notices, f"On {_native.isa()}; torch {torch.__version__}.", sep="\n")
    print(
        f"Limits: float32 {limits['float32'] / 1e9:.0f} G, int8 {limits['int8'] / 1e9:.0f} G "
        f"operations per second; reading {limits['bandwidth'] / 1e9:.1f} GB/s."
    )
    for scheme in arguments.schemes:
        for matrix in QWEN:
            measure(ops, matrix, scheme, limits, arguments.seconds)
    torch.set_num_threads(arguments.num_threads)
    for matrix in QWEN[:4]:
        measure_torch(matrix, arguments.seconds)


if __name__ == "__main__":
    main()
