"""What drawing a step's tokens costs: the reference beside the kernels, in one run.

    python benchmarks/sampling.py [--threads 2] [--flat]

Milliseconds per step, medians. Logits fall off as those of trained models do: a few likely tokens and
a long tail. --flat draws them from a normal distribution, as a model of random weights gives them:
nearly every token stays in question, the worst case for top_p and typical_p.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from penstock.kernels.cpu.backend import cpu_ops
from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.sampling.contract import Shaping

OPTIONS: dict[str, dict[str, float]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.9},
    "all": {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.95},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kernels, notes = cpu_ops(given.threads)
    print(notes[0])
    print(f"{'rows':>4} {'vocabulary':>10} {'':12} {'reference':>10} {'kernels':>8} {'ratio':>6}")
    for vocab_size in (151_936, 32_000):
        for rows in (1, 64):
            logits = torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(0))
            if not given.flat:
                logits = logits * 2 + torch.where(logits > 3, 4 * (logits - 3), 0.0)
            for name, options in OPTIONS.items():
                slow, fast = (milliseconds(step(ops, logits, options)) for ops in (REFERENCE, kernels))
                print(
                    f"{rows:4} {vocab_size:10} {name:12} {slow:10.2f} {fast:8.3f} {slow / fast:6.0f}",
                    flush=True,
                )
            chosen = torch.zeros(rows, dtype=torch.int64)
            slow, fast = (
                milliseconds(lambda ops=ops: ops.top_logprobs(logits, chosen, 5))
                for ops in (REFERENCE, kernels)
            )
            print(
                f"{rows:4} {vocab_size:10} {'logprobs':12} {slow:10.2f} {fast:8.3f} {slow / fast:6.0f}"
            )


def step(ops: Ops, logits: Tensor, options: dict[str, float]) -> Callable[[], Tensor]:
    if not options:
        return lambda: ops.argmax(logits)
    rows = len(logits)
    shaping = Shaping(**{name: torch.full((rows,), float(value)) for name, value in options.items()})
    uniforms = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return lambda: ops.draw(logits, shaping, uniforms)


def milliseconds(call: Callable[[], object]) -> float:
    """The median of calls made for half a second, at least three."""
    call()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < 0.5:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


if __name__ == "__main__":
    main()
