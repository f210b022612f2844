"""What drawing a step's tokens costs: the reference beside the kernels, in one run.

    python benchmarks/sampling.py [--threads 2] [--flat]

Milliseconds per step, medians. The probabilities fall off with rank as those of trained models do,
r to the power of -1.5, in no order. --flat takes logits from a normal distribution, as a model of
random weights gives them: nearly every token stays in question, the worst case for top_p and
typical_p.
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
    "top_k": {"top_k": 50.0},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.9},
    "all": {"temperature": 0.8, "top_k": 50.0, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.95},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What drawing a step's tokens costs.")
    parser.add_argument("--threads", type=int, default=2, help="threads of the kernels")
    parser.add_argument("--flat", action="store_true", help="logits of a model of random weights")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kernels, notes = cpu_ops(given.threads)
    print(notes[0])
    print(f"{'rows':>4} {'vocabulary':>10} {'':11} {'reference':>10} {'kernels':>8} {'ratio':>6}")
    for vocab_size in (151_936, 32_000):
        for rows in (1, 64):
            for name, taken in measured(make_logits(rows, vocab_size, given.flat), kernels):
                slow, fast = taken
                print(f"{rows:4} {vocab_size:10} {name:11} {slow:10.2f} {fast:8.3f}", end="")
                print(f" {slow / fast:6.0f}", flush=True)


def make_logits(rows: int, vocab_size: int, flat: bool) -> Tensor:
    """Logits [rows, vocab_size], the same in every run."""
    generator = torch.Generator().manual_seed(0)
    if flat:
        return torch.randn(rows, vocab_size, generator=generator)
    ranks = [torch.randperm(vocab_size, generator=generator) + 1 for _ in range(rows)]
    return -1.5 * torch.stack(ranks).log()


def measured(logits: Tensor, kernels: Ops) -> list[tuple[str, list[float]]]:
    """For every way to read logits: what the reference takes, and the kernels."""
    both, chosen = (REFERENCE, kernels), torch.zeros(len(logits), dtype=torch.int64)
    table = [
        (name, [milliseconds(step(ops, logits, options)) for ops in both])
        for name, options in OPTIONS.items()
    ]
    reads = [lambda ops=ops: ops.top_logprobs(logits, chosen, 5) for ops in both]
    return [*table, ("logprobs", [milliseconds(read) for read in reads])]


def step(ops: Ops, logits: Tensor, options: dict[str, float]) -> Callable[[], Tensor]:
    """What draws one token for each row, as every row asks for the same."""
    if not options:
        return lambda: ops.argmax(logits)
    rows = len(logits)
    shaping = Shaping(**{name: torch.full((rows,), value) for name, value in options.items()})
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
