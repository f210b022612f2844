"""Whether the host waits for the device anywhere in a step but where its results are read: torch is
told to refuse that
(https://docs.pytorch.org/docs/stable/generated/torch.cuda.set_sync_debug_mode.html).
"""

import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import torch

from penstock.engine.engine import Engine
from penstock.engine.runner import Launched
from penstock.scheduling.sequence import Plan
from penstock.vocabulary.messages import Request
from scripts.gpu_check.part import Part

KEPT = (("bfloat16", "bfloat16"), ("int8", "int8"), ("fp8", "fp8"), ("int4", "bfloat16"))
"""Weights, and keys and values."""
ROUNDS = 2
"""In which kernels are compiled and steps are recorded: both may wait."""

Launch = Callable[[Plan], Launched]


def run(part: Part) -> None:
    """Where steps with every option waited, if any did."""
    if not part.scale.is_gpu:
        part.summary["steps that wait"] = "skipped: on a CPU there is nothing to wait for"
        return
    every_option, count = import_module("tests.engine.every_option"), 0
    for family in part.scale.families:
        for weights, kv_dtype in KEPT:
            if weights == "fp8" and part.scale.capability < (8, 9):
                continue
            kept = {"weights": weights, "kv_dtype": kv_dtype, "watermark_key": every_option.KEY}
            engine = tiny_engine(family, device=part.scale.device, **kept)
            num_steps, places = waits(engine, every_option.EVERY_OPTION)
            count += num_steps
            part.wrong += [f"{family} in {weights}: {place}" for place in places]
            part.summary |= {"steps watched": count, "steps that wait": len(part.wrong)}


def tiny_engine(family: str, **settings: str) -> Engine:
    """An engine on a tiny model, which computes the same steps whenever it is asked the same."""
    tiny, tiny_models = map(import_module, ("tests.engine.tiny_engine", "tests.tiny_models"))
    with tempfile.TemporaryDirectory() as folder:
        directory = tiny_models.make_tiny_checkpoint(family, Path(folder))
        engine: Engine = tiny.make_engine(
            directory, token_budget=40, prefix_caching=False, **settings
        )
    return engine


def waits(engine: Engine, requests: list[Request]) -> tuple[int, list[str]]:
    """How many steps were watched, and where one waited: none is computed after that."""
    for _ in range(ROUNDS):
        _answer(engine, requests)
    before = engine.stats().num_steps
    with patch.object(engine.runner, "launch", _refusing_to_wait(engine.runner.launch)):
        try:
            _answer(engine, requests)
        except RuntimeError as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}: {error}"
            return engine.stats().num_steps - before, [place]
    return engine.stats().num_steps - before, []


def _answer(engine: Engine, requests: list[Request]) -> None:
    for request in requests:
        engine.add(request)
    while engine.has_work:
        engine.step()


def _refusing_to_wait(launch: Launch) -> Launch:
    """A launch during which torch raises RuntimeError where it would wait for the device."""

    def launch_without_waiting(plan: Plan) -> Launched:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return launch(plan)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return launch_without_waiting
