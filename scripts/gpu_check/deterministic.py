"""The deterministic mode: the engine's laws bit for bit, and what that costs."""

import tempfile
import time
from importlib import import_module
from pathlib import Path

from penstock.vocabulary.sampling_params import SamplingParams
from scripts.gpu_check.engine import steady_rates, warm_up
from scripts.gpu_check.laws import broken_bits
from scripts.gpu_check.part import Part, Scale
from scripts.gpu_check.random_model import random_engine

REPORTED = SamplingParams(
    temperature=1, top_p=0.95, max_tokens=20, ignore_eos=True, seed=7, logprobs=5
)
KEPT = (("bfloat16", "bfloat16"), ("float32", "float32"), ("int8", "int8"))
"""Weights, and keys and values."""
SHAPE = "Llama-3-8B"
COST_S = 30.0
"""To be left for measuring what it costs."""


def run(part: Part) -> None:
    """Laws that were broken, and rates as shares of the usual mode's."""
    _try_laws(part)
    rates = _rates(part.scale)
    part.figures["rates"] = rates
    part.summary |= shares(rates, part.report.get("engine", {}).get(f"{SHAPE}, bfloat16", {}))


def _try_laws(part: Part) -> None:
    tiny_models, count = import_module("tests.tiny_models"), 0
    for family in part.scale.families:
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_models.make_tiny_checkpoint(family, Path(folder))
            for weights, kv_dtype in KEPT:
                if time.monotonic() > part.deadline - COST_S:
                    continue
                kept = {"weights": weights, "kv_dtype": kv_dtype}
                broken, tried = broken_bits(
                    directory, REPORTED, device=part.scale.device, deterministic=True, **kept
                )
                count += tried
                part.wrong += [f"{family} in {weights}: {way}" for way in broken]
                part.summary |= {"laws tried bit for bit": count, "broken": len(part.wrong)}


def _rates(scale: Scale) -> dict[str, float]:
    settings = {"weights": "bfloat16", "deterministic": True}
    with random_engine(scale.shapes[SHAPE], **scale.engine, **settings) as engine:
        warm_up(engine)
        return steady_rates(engine, full=scale.is_gpu)


def shares(rates: dict[str, float], usual: dict[str, float]) -> dict[str, str]:
    """Each rate, and where the usual mode's is known, how much of that it is."""
    known = {name: f" ({rate / usual[name]:.0%})" for name, rate in rates.items() if name in usual}
    return {f"{SHAPE}: {name}": f"{rate:,.0f}{known.get(name, '')}" for name, rate in rates.items()}
