"""A checkpoint in the making: tensors one after the other, in files of bounded size."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from penstock.models.checkpoint import INDEX, SINGLE

SHARD_BYTES = 2 * 2**30


class CheckpointWriter:
    """Writes safetensors into a directory, holding no more than one file's tensors in memory."""

    def __init__(self, directory: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.directory = directory
        self.shard_bytes = shard_bytes
        self._waiting: dict[str, Tensor] = {}
        self._num_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Put one tensor, on any device, into the file that is being filled."""
        if self._waiting and self._num_bytes + tensor.nbytes > self.shard_bytes:
            self._write()
        self._waiting[name] = tensor.cpu().contiguous()
        self._num_bytes += tensor.nbytes

    def close(self) -> None:
        """Write what is left, and, if there are several files, the index of them."""
        if self._waiting:
            self._write()
        if len(self._shards) == 1:
            self._file(0).rename(self.directory / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            final = f"model-{number + 1:05}-of-{len(self._shards):05}.safetensors"
            self._file(number).rename(self.directory / final)
            weight_map |= dict.fromkeys(names, final)
        write_json(self.directory / INDEX, {"metadata": {}, "weight_map": weight_map})

    def _write(self) -> None:
        path = self._file(len(self._shards))
        save_file(self._waiting, path, metadata={"format": "pt"})
        path.chmod(0o644)  # the library leaves it readable by its owner alone
        self._shards.append(list(self._waiting))
        self._waiting, self._num_bytes = {}, 0

    def _file(self, number: int) -> Path:
        return self.directory / f"unfinished-{number:05}.safetensors"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Two-space JSON with a closing newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
