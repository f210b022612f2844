"""The tensors of a checkpoint by name: safetensors, in one file or in shards, mapped into memory.

Headers are read first, so that a shape can be doubted before a byte of weights is touched.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from penstock.kernels.quantization import Quantized
from penstock.vocabulary.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
QUANTIZED = {"int8": "quantized I8", "int4": "quantized I4"}
"""What `Stored.dtype` says of a matrix of integers that belong with scales."""
_ITEM_BYTES = {"F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0, QUANTIZED["int4"]: 0.5}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor is kept, and what it looks like."""

    file: Any
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        count = _ITEM_BYTES.get(self.dtype, 1)
        for size in self.shape:
            count *= size
        return int(count)


class Checkpoint:
    """A model directory's tensors. A context: leaving it unmaps the files."""

    def __init__(self, model_dir: Path) -> None:
        self._files = ExitStack()
        self.tensors: dict[str, Stored] = {}
        for path, expected in _files(model_dir).items():
            self._open(path, expected)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *exception: object) -> None:
        self.tensors = {}
        self._files.close()

    def find(self, name: str) -> str | None:
        """The tensor of this name, or of this name without its first part: bare models are saved
        like that.
        """
        short = name.partition(".")[2]
        return next((found for found in (name, short) if found in self.tensors), None)

    def read(self, name: str) -> Tensor | Quantized:
        """One tensor, on the CPU, in the type it is stored in."""
        tensor: Tensor = self.tensors[name].file.get_tensor(name)
        return tensor

    def _open(self, path: Path, expected: set[str]) -> None:
        try:
            file = self._files.enter_context(safe_open(path, framework="pt", device="cpu"))
            names = set(file.keys())
            for name in sorted(names):
                view = file.get_slice(name)
                self.tensors[name] = Stored(file, tuple(view.get_shape()), str(view.get_dtype()))
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{path.name} is not a readable safetensors file: {error}.",
                remedy="It is truncated or damaged: fetch it again.",
            ) from error
        if missing := sorted(expected - names):
            raise ModelError(
                f"{INDEX} promises {missing[0]} in {path.name}, which does not have it."
            )


def _files(model_dir: Path) -> Mapping[Path, set[str]]:
    """The files to open, with the tensors that must be in them."""
    if (model_dir / SINGLE).is_file():
        return {model_dir / SINGLE: set()}
    if (model_dir / INDEX).is_file():
        return _shards(model_dir)
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
