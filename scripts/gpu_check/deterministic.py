"""The deterministic mode: the engine's laws bit for bit, and what that costs."""

import tempfile
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from penstock.vocabulary.sampling_params import SamplingParams
from scripts.gpu_check.engine import MAX_LEN, steady_rates, warm_up
from scripts.gpu_check.laws import FAMILIES, broken_bits
from scripts.gpu_check.random_model import SHAPES, random_engine

REPORTED = SamplingParams(
    temperature=1, top_p=0.95, max_tokens=20, ignore_eos=True, seed=7, logprobs=5
)
KEPT = (("bfloat16", "bfloat16"), ("float32", "float32"), ("int8", "int8"))
"""Weights, and keys and values."""
SHAPE = "Llama-3-8B"
COST_S = 30.0
"""To be left for measuring what it costs."""


@dataclass
class _Laws:
    tried: int = 0
    broken: list[str] = field(default_factory=list)


def run(deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """Laws that were broken, and rates as shares of the usual mode's."""
    laws = _Laws()
    tiny_models = import_module("tests.tiny_models")
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_models.make_tiny_checkpoint(family, Path(folder))
            for weights, kv_dtype in KEPT:
                if time.monotonic() < deadline - COST_S:
                    _try(laws, family, directory, weights, kv_dtype)
    summary: dict[str, Any] = {"laws tried bit for bit": laws.tried, "broken": len(laws.broken)}
    found = {"summary": summary, "wrong": laws.broken}
    try:
        rates = _rates()
    except TimeoutError as error:
        summary[f"{SHAPE}, rates"] = str(error)
        return found
    summary |= _shares(rates, report.get("engine", {}).get(f"{SHAPE}, bfloat16", {}))
    return found | {"rates": rates}


def _try(laws: _Laws, family: str, directory: Path, weights: str, kv_dtype: str) -> None:
    settings = {"device": "cuda", "weights": weights, "kv_dtype": kv_dtype, "deterministic": True}
    broken, tried = broken_bits(directory, REPORTED, **settings)
    laws.tried += tried
    laws.broken += [f"{family} in {weights}: {way}" for way in broken]


def _rates() -> dict[str, float]:
    with random_engine(
        SHAPES[SHAPE],
        device="cuda",
        weights="bfloat16",
        max_model_len=MAX_LEN,
        token_budget=4096,
        deterministic=True,
    ) as engine:
        warm_up(engine)
        return steady_rates(engine)


def _shares(rates: dict[str, float], usual: dict[str, float]) -> dict[str, str]:
    """Each rate, and where the usual mode's is known, how much of that it is."""
    shares = {name: f" ({rate / usual[name]:.0%})" for name, rate in rates.items() if name in usual}
    return {
        f"{SHAPE}: {name}": f"{rate:,.0f}{shares.get(name, '')}" for name, rate in rates.items()
    }
