"""The tensors of a checkpoint by name: safetensors, in one file or in shards, mapped into memory.

Headers are read first, so that a shape can be doubted before a byte of weights is touched.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from penstock.kernels.quantization import Quantized
from penstock.models.manifest import is_snapshot
from penstock.models.safetensors_file import SafetensorsFile, Stored
from penstock.vocabulary.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
QUANTIZED = {"int8": "quantized I8", "int4": "quantized I4"}
"""What `Stored.dtype` says of a matrix of integers that belong with scales."""


class Checkpoint:
    """A model directory's tensors. A context: leaving it lets go of the files, which stay mapped
    only for tensors that are in use.
    """

    def __init__(self, model_dir: Path) -> None:
        self.tensors: dict[str, Stored] = {}
        for path, expected in weight_files(model_dir).items():
            self._open(path, expected)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.tensors = {}

    def find(self, name: str) -> str | None:
        """The tensor of this name, or of this name without its first part: bare models are saved
        like that.
        """
        short = name.partition(".")[2]
        return next((found for found in (name, short) if found in self.tensors), None)

    def read(self, name: str) -> Tensor | Quantized:
        """One tensor, on the CPU, in the type it is stored in: a view of the mapped file."""
        return self.tensors[name].read()

    def extents(self, name: str) -> list[Stored]:
        """What must be read of the files for the tensor of this name."""
        return [self.tensors[name]]

    def _open(self, path: Path, expected: set[str]) -> None:
        found = SafetensorsFile(path).tensors
        if missing := sorted(expected - found.keys()):
            raise ModelError(
                f"{INDEX} promises {missing[0]} in {path.name}, which does not have it."
            )
        self.tensors |= found


def weight_files(model_dir: Path) -> Mapping[Path, set[str]]:
    """The files to open, with the tensors that must be in them. Others may lie beside them, such as
    the same weights in another form. Raises `ModelError` if there are none.
    """
    if (model_dir / SINGLE).is_file():
        return {model_dir / SINGLE: set()}
    if (model_dir / INDEX).is_file():
        return _shards(model_dir)
    if is_snapshot(model_dir):
        raise ModelError(
            f"{model_dir} is a snapshot: its weights are packed for one machine.",
            remedy="Name the model that it was made of.",
        )
    if pickled := sorted(path.name for kind in _PICKLED for path in model_dir.glob(kind)):
        raise ModelError(
            f"{model_dir} has pickled weights only ({', '.join(pickled[:3])}). "
            "A pickle can run any code, so it is never opened.",
            remedy="Convert them to safetensors, or use a revision of the model that has those.",
        )
    raise ModelError(
        f"{model_dir} has no weights: neither {SINGLE} nor {INDEX} is there.",
        remedy="Name a directory that holds a whole model.",
    )


def _shards(model_dir: Path) -> Mapping[Path, set[str]]:
    try:
        weight_map = dict(json.loads((model_dir / INDEX).read_text("utf-8"))["weight_map"])
        shards: dict[Path, set[str]] = {}
        for name, file_name in weight_map.items():
            if Path(file_name).name != file_name:
                raise ModelError(f"{INDEX} names {file_name!r}, which is not a file beside it.")
            shards.setdefault(model_dir / file_name, set()).add(name)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{INDEX} cannot be read: {error!r}.") from error
    if missing := sorted(path.name for path in shards if not path.is_file()):
        raise ModelError(
            f"{INDEX} names shards that are not there: {', '.join(missing)}.",
            remedy="Fetch the missing files into the same directory.",
        )
    return shards
