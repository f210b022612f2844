"""From a model of floats to one of integers, layer by layer, written so that others load it too."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE
from penstock.kernels.quantization import (
    GROUP_SIZE,
    Matrix,
    Quantized,
    floats,
    quantize_groups,
    quantize_rows,
)
from penstock.models.calibration import Observer, Stream
from penstock.models.compressed_tensors import Compression, describe, packed
from penstock.models.config import ModelConfig, read_config
from penstock.models.directory import beside_weights
from penstock.models.folding import Folding
from penstock.models.loading import content_of
from penstock.models.reading import OnProgress, Piece, SlotReader
from penstock.models.slots import ExpertsSlot, LinearSlot, Slot, slots
from penstock.models.weights import Weights
from penstock.models.writing import CheckpointWriter, write_json
from penstock.vocabulary.errors import ModelError


def quantize_model(
    model_dir: Path,
    directory: Path,
    *,
    weights: Literal["int8", "int4"],
    texts: Sequence[Sequence[int]],
    smoothing: float,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> None:
    """Write a model whose layers' linears are integers, in the compressed-tensors format.

    Embedding, head and routers stay floats, and so do norms and biases. With smoothing above 0,
    outliers in the activations that the texts (token ids) cause are moved into weights first.
    config.json comes last: a directory without one is unfinished. Raises `ModelError` if the model
    cannot be read, or the directory is not empty.
    """
    config = read_config(model_dir)
    if config.compression is not None:
        raise ModelError(
            f"{model_dir} has been quantized already.", remedy="Take the model it was made of."
        )
    if directory.exists() and any(directory.iterdir()):
        raise ModelError(f"{directory} is not empty.", remedy="Name a directory to be made.")
    directory.mkdir(parents=True, exist_ok=True)
    with SlotReader(model_dir, config, device, on_progress) as reader:
        job = _Job(config, reader, CheckpointWriter(directory), weights, smoothing)
        job.run(texts if smoothing > 0 else [], device)
        ignored = job.ignored()
    _copy_other_files(model_dir, directory)
    compression = Compression(weights, None if weights == "int8" else GROUP_SIZE)
    description = {"quantization_config": describe(compression, ignored)}
    write_json(directory / "config.json", config.hf | description)


class _Job:
    def __init__(
        self,
        config: ModelConfig,
        reader: SlotReader,
        writer: CheckpointWriter,
        weights: str,
        smoothing: float,
    ) -> None:
        self.spec = config.spec
        self.reader = reader
        self.writer = writer
        self.quantize = quantize_rows if weights == "int8" else quantize_groups
        self.smoothing = smoothing
        self.observer = Observer(REFERENCE)

    @torch.inference_mode()
    def run(self, texts: Sequence[Sequence[int]], device: torch.device) -> None:
        every_slot = slots(self.spec)
        outside = {slot.name: self._read(slot) for slot in every_slot if slot.layer is None}
        for slot in every_slot:
            if slot.layer is None:
                self._write(slot, outside[slot.name])
        stream = self._stream(outside, texts, device) if texts else None
        del outside
        for layer in range(self.spec.num_layers):
            members = [slot for slot in every_slot if slot.layer == layer]
            tensors = {slot.name: self._read(slot) for slot in members}
            if stream is not None:
                met = self._measure(stream, layer, members, tensors)
                Folding(self.spec, members, tensors, met, self.smoothing).fold()
            for slot in members:
                self._write(slot, tensors[slot.name])
        self.writer.close()

    def ignored(self) -> list[str]:
        """The linears that stay floats."""
        names = {
            name
            for slot in slots(self.spec)
            if isinstance(slot, LinearSlot) and not _becomes_integers(slot)
            for piece in self.reader.pieces[slot.label]
            for name in piece.names
        }
        return sorted({name.rpartition(".")[0] for name in names | self.reader.spare})

    def _stream(
        self, outside: dict[str, list[Tensor]], texts: Sequence[Sequence[int]], device: torch.device
    ) -> Stream:
        tables = {name: parts[0] for name, parts in outside.items() if parts}
        project_in = outside.get("project_in")
        ops = self.observer.ops
        packed_in = ops.pack_linear(project_in[0], None, "float32") if project_in else None
        return Stream(self.spec, tables, packed_in, texts, ops, device)

    def _measure(
        self, stream: Stream, layer: int, members: list[Slot], tensors: dict[str, list[Tensor]]
    ) -> dict[str, Tensor]:
        """Compute one layer, and return what its linears met, by slot name."""
        filled = Weights()
        for slot in members:
            parts: list[Matrix] = [*tensors[slot.name]]
            content = content_of(slot, parts, "float32", torch.float32, REFERENCE)
            filled.put(slot, content)
        self.observer.forget()
        stream.through(filled, layer)
        linears = [slot for slot in members if isinstance(slot, LinearSlot)]
        return {slot.name: self.observer.largest(filled.linears[slot.label]) for slot in linears}

    def _read(self, slot: Slot) -> list[Tensor]:
        return [floats(tensor) for tensor in self.reader.read(slot)]

    def _write(self, slot: Slot, tensors: list[Tensor]) -> None:
        for piece, tensor in zip(self.reader.pieces[slot.label], tensors, strict=True):
            if _becomes_integers(slot) and tensor.dim() == 2:
                self._write_integers(piece, self.quantize(tensor))
                continue
            for name, rows in self.reader.divide(piece, tensor):
                self.writer.add(name, _narrowed(rows, self.reader.stored(name).dtype))

    def _write_integers(self, piece: Piece, weight: Quantized) -> None:
        values = self.reader.divide(piece, weight.values)
        scales = self.reader.divide(piece, weight.scale)
        for (name, rows), (_, scale) in zip(values, scales, strict=True):
            part = Quantized(rows, scale, weight.group_size)
            for each, tensor in packed(name.removesuffix(".weight"), part).items():
                self.writer.add(each, tensor)


def _becomes_integers(slot: Slot) -> bool:
    """The slot's matrices are rounded. A router decides too much, and a head tells words apart."""
    if isinstance(slot, ExpertsSlot):
        return True
    return isinstance(slot, LinearSlot) and slot.layer is not None and slot.name != "router"


def _narrowed(tensor: Tensor, stored_as: str) -> Tensor:
    """A float16 tensor that was widened to be scaled, as it was stored if that loses nothing."""
    half = tensor.half()
    return half if stored_as == "F16" and torch.equal(half.to(tensor.dtype), tensor) else tensor


def _copy_other_files(model_dir: Path, directory: Path) -> None:
    for path in beside_weights(model_dir):
        if path.name != "config.json":
            shutil.copy(path, directory / path.name)
