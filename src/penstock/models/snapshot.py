"""Packed weights on disk, ready to be mapped: a directory of safetensors files and a manifest.

Snapshots that people make have a model's other files beside them, entries of the packed cache do
not. Tensors begin at multiples of 64 bytes and are used where they lie: no copy is made, pages come
in when touched, and processes that serve the same files share them.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.kernels.packed import Fact, Packed, Packing
from penstock.models.manifest import (
    FORMAT,
    FileFacts,
    Kept,
    Manifest,
    Origin,
    SlotKind,
    damaged,
    read_manifest,
    write_manifest,
)
from penstock.models.safetensors_file import ALIGNMENT, SafetensorsFile, Stored, write_safetensors
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, TableSlot, slots
from penstock.models.spec import DecoderSpec
from penstock.models.weights import Content, NormWeights, Weights
from penstock.vocabulary.errors import ModelError

OnBytes: TypeAlias = Callable[[int, int], None]
_SUFFIX = ".safetensors"
_FILE_BYTES = 256 * 2**20
"""About how large a file of weights grows: they are checked side by side."""
_CHUNK_BYTES = 4 * 2**20


def write_snapshot(
    directory: Path,
    filled: Iterable[tuple[Slot, Content]],
    origin: Origin,
    others: Iterable[Path] = (),
) -> None:
    """Write what fills every slot into a directory, then copies of other files, then the manifest.

    Of the weights, one file's worth is in memory at a time. Nothing is synced. Raises OSError.
    """
    kept: dict[str, Kept] = {}
    files: dict[str, FileFacts] = {}
    tensors: dict[str, Tensor] = {}

    def write() -> None:
        name = f"packed-{len(files) + 1:05}{_SUFFIX}"
        checksum = write_safetensors(directory / name, tensors)
        files[name] = FileFacts((directory / name).stat().st_size, checksum)
        tensors.clear()

    for slot, content in filled:
        facts, parts = _taken_apart(slot, content)
        kept[slot.label] = Kept(_kind(slot), facts, list(parts))
        tensors |= {f"{slot.label}.{name}": part.cpu() for name, part in parts.items()}
        if sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()) >= _FILE_BYTES:
            write()
    if tensors:
        write()
    for path in others:
        content_bytes = path.read_bytes()
        (directory / path.name).write_bytes(content_bytes)
        checksum = hashlib.sha256(content_bytes).hexdigest()
        files[path.name] = FileFacts(len(content_bytes), checksum)
    write_manifest(directory, Manifest(format=FORMAT, origin=origin, slots=kept, files=files))


def sync(directory: Path) -> None:
    """Have the disk hold what was written into a directory. Raises OSError."""
    for path in [*directory.iterdir(), directory]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class Snapshot:
    """A snapshot whose files have the sizes that its manifest tells, and of which all but the
    weights are certain to be what was written. Raises `ModelError` otherwise.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory)
        for name, facts in self.manifest.files.items():
            path = directory / name
            if not path.is_file():
                raise damaged(f"{directory} lacks {name}")
            if (size := path.stat().st_size) != facts.size:
                raise damaged(f"{path} has {size} bytes where {facts.size} were written")
        self._compare(self.manifest.files.keys() - self._weights_files())

    @property
    def origin(self) -> Origin:
        return self.manifest.origin

    @property
    def nbytes(self) -> int:
        """Of all files but the manifest."""
        return sum(facts.size for facts in self.manifest.files.values())

    def check_fits(self, packing: Packing, dtype: str) -> None:
        """Raises `ModelError` unless weights were packed for these operations and activations."""
        origin = self.origin
        packed = Packing(origin.instruction_set, origin.packing_version)
        again = f"Make it anew on this machine: penstock snapshot {origin.source} DIRECTORY."
        if packed != packing:
            raise ModelError(
                f"{self.directory} was packed for {packed.instruction_set}, layout "
                f"{packed.version} (by Penstock {origin.penstock}); the kernels in use take "
                f"{packing.instruction_set}, layout {packing.version}.",
                remedy=again,
            )
        if origin.dtype != dtype:
            raise ModelError(
                f"{self.directory} was made for activations in {origin.dtype}; on this device they "
                f"are {dtype}.",
                remedy=again,
            )

    def verify(self, on_bytes: OnBytes | None = None) -> None:
        """Compare every file of weights with its checksum, on all processors. Raises `ModelError`
        if one differs.
        """
        self._compare(self._weights_files(), on_bytes)

    def weights(self, spec: DecoderSpec, ops: Ops, device: torch.device) -> Weights:
        """What fills the slots of a spec; on a CPU, views of the mapped files. Raises `ModelError`
        if anything is missing, superfluous, or not as the spec has it.
        """
        stored = dict(self._stored())
        filled = Weights()
        places = {slot.label: slot for slot in slots(spec)}
        for label in places.keys() ^ self.manifest.slots.keys():
            raise damaged(f"{self.directory} and its config.json disagree about {label}")
        for label, slot in places.items():
            kept = self.manifest.slots[label]
            try:
                parts = {name: _read(stored, f"{label}.{name}") for name in kept.parts}
                on_device = {name: part.to(device) for name, part in parts.items()}
                filled.put(slot, _put_together(slot, kept, on_device, ops))
            except ValueError as error:
                raise damaged(f"{self.directory}, {label}: {error}") from error
        return filled

    def _stored(self) -> Iterator[tuple[str, Stored]]:
        for name in self._weights_files():
            yield from SafetensorsFile(self.directory / name).tensors.items()

    def _weights_files(self) -> list[str]:
        return [name for name in self.manifest.files if name.endswith(_SUFFIX)]

    def _compare(self, names: Iterable[str], on_bytes: OnBytes | None = None) -> None:
        sizes = {name: self.manifest.files[name].size for name in names}
        total, done = sum(sizes.values()), 0
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            checksums = pool.map(self._checksum, sizes)
            for name, checksum in zip(sizes, checksums, strict=True):
                if checksum != self.manifest.files[name].sha256:
                    pool.shutdown(cancel_futures=True)
                    raise damaged(f"{self.directory / name} differs from what was written")
                done += sizes[name]
                if on_bytes is not None:
                    on_bytes(done, total)

    def _checksum(self, name: str) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            with (self.directory / name).open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
        except OSError as error:
            raise damaged(f"{self.directory / name} cannot be read: {error}") from error
        return digest.hexdigest()


def _read(stored: Mapping[str, Stored], name: str) -> Tensor:
    found = stored.get(name)
    if found is None:
        raise ValueError(f"there is no tensor {name}")
    if found.start % ALIGNMENT:
        raise ValueError(f"{name} does not begin at a multiple of {ALIGNMENT} bytes")
    return found.read()


def _kind(slot: Slot) -> SlotKind:
    match slot:
        case TableSlot():
            return "table"
        case NormSlot():
            return "norm"
        case LinearSlot():
            return "linear"
        case ExpertsSlot():
            return "experts"


def _taken_apart(slot: Slot, content: Any) -> tuple[dict[str, Fact], dict[str, Tensor]]:
    """The facts and the parts of what fills a slot."""
    match slot:
        case TableSlot():
            return {}, {"weight": content}
        case NormSlot():
            parts = content._asdict()
            return {}, {name: part for name, part in parts.items() if part is not None}
        case LinearSlot() | ExpertsSlot():
            packed = cast(Packed, content)
            return packed.facts(), packed.parts()


def _put_together(slot: Slot, kept: Kept, parts: dict[str, Tensor], ops: Ops) -> Content:
    """What fills a slot, of its facts and parts. Raises ValueError if they do not fit the slot."""
    if kept.kind != _kind(slot):
        raise ValueError(f"a {kept.kind} is no {_kind(slot)}")
    match slot:
        case TableSlot():
            return _floats(parts, "weight", (slot.rows, slot.width))
        case NormSlot():
            bias = _floats(parts, "bias", (slot.width,)) if slot.bias else None
            return NormWeights(_floats(parts, "weight", (slot.width,)), bias)
        case LinearSlot():
            _agree(slot, kept.facts, ("out_features", "in_features", "gated"))
            return ops.restore_linear(kept.facts, parts)
        case ExpertsSlot():
            _agree(slot, kept.facts, ("count", "hidden", "intermediate"))
            return ops.restore_experts(kept.facts, parts)


def _agree(slot: Slot, facts: Mapping[str, Fact], names: Iterable[str]) -> None:
    for name in names:
        found, expected = facts.get(name), getattr(slot, name)
        if found != expected:
            raise ValueError(f"{name} is {found} where {expected} is expected")


def _floats(parts: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = parts.get(name)
    if found is None or tuple(found.shape) != shape or not found.is_floating_point():
        raise ValueError(f"{name} is not {list(shape)} floats")
    return found
