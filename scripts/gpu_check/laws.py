"""The engine's laws on two tiny families, on the GPU: slices, company, prefixes and preemption
change no token; and the tokens are those that the CPU computes.
"""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock.engine.engine import Engine
from penstock.vocabulary.sampling_params import SamplingParams

FAMILIES = ("qwen3", "mixtral")
PROMPT = [3 + 7 * number % 97 for number in range(45)]
OTHERS = [[5 + 11 * number % 89 for number in range(length)] for length in (1, 17, 58)]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=20, ignore_eos=True, seed=7)


def run(deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """Which laws were broken, by which family."""
    tiny_models = import_module("tests.tiny_models")
    wrong: list[str] = []
    count = 0
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_models.make_tiny_checkpoint(family, Path(folder))
            for params in (GREEDY, DRAWN):
                broken, tried = broken_laws(directory, params, "cuda")
                count += tried
                wrong += [f"{family}, temperature {params.temperature}: {law}" for law in broken]
    return {"summary": {"laws tried": count, "broken": len(wrong)}, "wrong": wrong}


def broken_laws(directory: Path, params: SamplingParams, device: str) -> tuple[list[str], int]:
    """Which laws do not hold on a device, and how many were tried."""
    tiny = import_module("tests.engine.tiny_engine")
    on_cpu = tiny.make_engine(directory, device="cpu", weights="float32", kv_dtype="float32")
    expected = tiny.continuation(on_cpu, PROMPT, params)

    def engine(**settings: Any) -> Engine:
        made: Engine = tiny.make_engine(
            directory, device=device, weights="float32", kv_dtype="float32", **settings
        )
        return made

    def beside(made: Engine) -> list[int]:
        requests = {str(number): (other, DRAWN) for number, other in enumerate(OTHERS)}
        found = tiny.run(made, {**requests, "mine": (PROMPT, params)})
        return list(tiny.tokens(found["mine"][0]))

    def after_a_prefix() -> list[int]:
        made = engine()
        tiny.continuation(made, PROMPT[:40], GREEDY)
        return list(tiny.continuation(made, PROMPT, params))

    laws = {
        "alone, as on the CPU": lambda: tiny.continuation(engine(), PROMPT, params),
        "slices of 2": lambda: tiny.continuation(
            engine(token_budget=2, max_num_seqs=1), PROMPT, params
        ),
        "in company": lambda: beside(engine(token_budget=30)),
        "preempted": lambda: beside(engine(num_blocks=8, promise_tokens=2, prefix_caching=False)),
        "after a cached prefix": after_a_prefix,
    }
    return [law for law, compute in laws.items() if compute() != expected], len(laws)
