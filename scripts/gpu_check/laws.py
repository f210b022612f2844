"""The engine's laws on two tiny families, on the GPU: slices, company, prefixes, preemption and
graphs change no token; and the tokens are those that the CPU computes.
"""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock.engine.engine import Engine
from penstock.vocabulary.sampling_params import SamplingParams
from scripts.gpu_check.part import Part

PROMPT = [3 + 7 * number % 97 for number in range(45)]
OTHERS = [[5 + 11 * number % 89 for number in range(length)] for length in (1, 17, 58)]
GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
DRAWN = SamplingParams(temperature=1, top_p=0.95, max_tokens=20, ignore_eos=True, seed=7)
EXACT = {"weights": "float32", "kv_dtype": "float32"}


def run(part: Part) -> None:
    """Which laws were broken, by which family."""
    tiny_models = import_module("tests.tiny_models")
    count = 0
    for family in part.scale.families:
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_models.make_tiny_checkpoint(family, Path(folder))
            for params in (GREEDY, DRAWN):
                broken, tried = broken_laws(directory, params, part.scale.device)
                count += tried
                part.wrong += [
                    f"{family}, temperature {params.temperature}: {law}" for law in broken
                ]
                part.summary.update({"laws tried": count, "broken": len(part.wrong)})


def broken_laws(directory: Path, params: SamplingParams, device: str) -> tuple[list[str], int]:
    """Which laws do not hold on a device for tokens, and how many were tried."""
    tiny = import_module("tests.engine.tiny_engine")
    expected = _answer(tiny.make_engine(directory, device="cpu", **EXACT), params)
    return _compared(expected, _ways(directory, params, device=device, **EXACT))


def broken_bits(directory: Path, params: SamplingParams, **settings: Any) -> tuple[list[str], int]:
    """The same for every number that is reported, against those of a request that is alone."""
    ways = _ways(directory, params, **settings)
    return _compared(ways.pop("alone")(), ways)


def _compared(expected: Any, ways: dict[str, Any]) -> tuple[list[str], int]:
    return [way for way, compute in ways.items() if compute() != expected], len(ways)


def _ways(directory: Path, params: SamplingParams, **settings: Any) -> dict[str, Any]:
    """Ways to come by the same answer, by name."""
    tiny = import_module("tests.engine.tiny_engine")

    def engine(**limits: Any) -> Engine:
        made: Engine = tiny.make_engine(directory, **settings, **limits)
        return made

    def after_a_prefix() -> Any:
        made = engine()
        tiny.continuation(made, PROMPT[:40], GREEDY)
        return _answer(made, params)

    def without_graphs() -> Any:
        made = engine()
        made.runner.graphs = None
        return _answer(made, params)

    scarce = {"num_blocks": 8, "promise_tokens": 2, "prefix_caching": False}
    return {
        "alone": lambda: _answer(engine(), params),
        "slices of 2": lambda: _answer(engine(token_budget=2, max_num_seqs=1), params),
        "in company": lambda: _answer(engine(token_budget=30), params, OTHERS),
        "preempted": lambda: _answer(engine(**scarce), params, OTHERS),
        "after a cached prefix": after_a_prefix,
        "without graphs": without_graphs,
    }


def _answer(engine: Engine, params: SamplingParams, others: list[list[int]] | None = None) -> Any:
    """The tokens that follow the prompt, and what is reported of them."""
    tiny = import_module("tests.engine.tiny_engine")
    company = {str(number): (other, DRAWN) for number, other in enumerate(others or [])}
    found = tiny.run(engine, {**company, "mine": (PROMPT, params)})["mine"][0]
    return tiny.tokens(found), [entry for output in found for entry in output.logprobs]
