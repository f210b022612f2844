"""The same model with hard activations: some channels of every norm scaled up, and the columns of
what reads them down.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock.models.config import family_of, read_config
from penstock.models.smoothing import norm_readers
from penstock.models.sources import PerExpert, Source


def with_outliers(
    model_dir: Path, directory: Path, *, share: float = 1 / 32, factor: float = 50.0
) -> Path:
    """Copy a model of one file into `directory`, equivalent but for rounding, in float32: a share
    of the channels of each norm is `factor` times as large.
    """
    shutil.copytree(model_dir, directory, dirs_exist_ok=True)
    config = read_config(model_dir)
    sources = family_of(config.architecture).weights(config.spec)
    tensors = {
        name: tensor.float() for name, tensor in load_file(model_dir / "model.safetensors").items()
    }
    generator = torch.Generator().manual_seed(0)
    for norm, readers in norm_readers(config.spec).items():
        tied = config.spec.tied and "head" in readers
        for layer in range(1 if norm == "final_norm" else config.spec.num_layers):
            if not tied:
                columns = [each for name in readers for each in _modules(sources[name], layer)]
                _inject(tensors, _modules(sources[norm], layer), columns, share, factor, generator)
    save_file(tensors, directory / "model.safetensors")
    text = json.loads((directory / "config.json").read_text())
    names = {"torch_dtype", "dtype"} & set(text)
    (directory / "config.json").write_text(json.dumps(text | dict.fromkeys(names, "float32")))
    return directory


def _inject(
    tensors: dict[str, Tensor],
    norms: list[str],
    readers: list[str],
    share: float,
    factor: float,
    generator: torch.Generator,
) -> None:
    width = len(tensors[f"{norms[0]}.weight"])
    channels = torch.randperm(width, generator=generator)[: max(1, round(share * width))]
    for name in norms:
        for part in ("weight", "bias"):
            if f"{name}.{part}" in tensors:
                tensors[f"{name}.{part}"][channels] *= factor
    for name in readers:
        tensors[f"{name}.weight"][:, channels] /= factor


def _modules(source: Source, layer: int) -> list[str]:
    return [name.format(layer=layer) for name in _names(source)]


def _names(source: Source) -> Iterator[str]:
    match source:
        case str():
            yield source
        case PerExpert():
            for expert in range(4):
                for name in (source.gate, source.up):
                    yield name.replace("{expert}", str(expert))
        case _:
            yield from source.names
