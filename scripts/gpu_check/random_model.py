"""Models of known shapes with random weights, made on the device: nothing is downloaded or read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine, prepare
from penstock.engine.settings import EngineSettings, OnProgress
from penstock.engine.weights import WeightsPlan
from penstock.kernels.quantization import Matrix
from penstock.models.loading import content_of
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, slots
from penstock.models.weights import Weights

_SPREAD = 0.02


@dataclass(frozen=True, kw_only=True)
class RandomWeights(WeightsPlan):
    """Weights that come from nowhere."""

    def load(self, on_progress: OnProgress | None) -> Weights:
        """The weights, slot by slot; a tied head is the embedding again."""
        filled, table = Weights(), torch.empty(0)
        for slot in slots(self.config.spec):
            parts: list[Matrix] = [*_random(slot, self.device)]
            if slot.name == "embedding":
                table = _random(slot, self.device)[0]
                parts = [table]
            if slot.name == "head" and self.config.spec.tied:
                parts = [table]
            dtype = getattr(torch, self.resolved.dtype)
            filled.put(slot, content_of(slot, parts, self.resolved.weights, dtype, self.ops))
        return filled


@contextmanager
def random_engine(shape: dict[str, Any], **settings: Any) -> Iterator[Engine]:
    """An engine that computes a model of this shape."""
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "config.json").write_text(json.dumps(shape))
        save_file({}, directory / "model.safetensors")  # nothing is planned without weights
        prepared = prepare(EngineSettings(**settings), directory, "random")
        plan = {each: getattr(prepared.weights, each) for each in WeightsPlan.__dataclass_fields__}
        engine = load_engine(replace(prepared, weights=RandomWeights(**plan)))
        try:
            yield engine
        finally:
            engine.grammars.close()


def _random(slot: Slot, device: torch.device) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, _SPREAD)

    if isinstance(slot, LinearSlot):
        bias = [normal(slot.out_features)] if slot.bias else []
        return [normal(slot.out_features, slot.in_features), *bias]
    if isinstance(slot, NormSlot):
        return [normal(slot.width) + 1, *([normal(slot.width)] if slot.bias else [])]
    if isinstance(slot, ExpertsSlot):
        up = [normal(2 * slot.intermediate, slot.hidden) for _ in range(slot.count)]
        return up + [normal(slot.hidden, slot.intermediate) for _ in range(slot.count)]
    return [normal(slot.rows, slot.width)]
