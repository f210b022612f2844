"""What the slots of a decoder need of a checkpoint: checked as a whole, then read slot by slot."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from penstock.kernels.quantization import Matrix, Quantized, floats
from penstock.models.checkpoint import QUANTIZED, Checkpoint
from penstock.models.compressed_tensors import CompressedCheckpoint
from penstock.models.config import ModelConfig, family_of
from penstock.models.safetensors_file import Stored
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, TableSlot, slots
from penstock.models.sources import GroupedQkv, Joined, PerExpert, Source
from penstock.vocabulary.errors import ModelError

OnProgress: TypeAlias = Callable[[int, int], None]
"""Told how many bytes are done, and how many there are in all."""
_READABLE = {"F64", "F32", "F16", "BF16", *QUANTIZED.values()}
_BUFFERS = (
    "rotary_emb.inv_freq",
    "attention.bias",
    "attention.masked_bias",
    "attn.bias",
    "attn.masked_bias",
)
"""Names of tensors that old checkpoints carry along and every engine makes itself."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What becomes one tensor in memory: of which stored ones, and how large together."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    source: Joined | GroupedQkv


class SlotReader:
    """A model directory's tensors as its slots need them. A context: leaving it lets go of the
    files, which stay mapped only for tensors that are in use.

    Raises `ModelError` at once if anything is missing, misshapen, unreadable or superfluous.
    """

    def __init__(
        self,
        model_dir: Path,
        config: ModelConfig,
        device: torch.device,
        on_progress: OnProgress | None = None,
    ) -> None:
        spec = config.spec
        sources = family_of(config.architecture).weights(spec)
        self.pieces = {slot.label: _pieces_of(slot, sources[slot.name]) for slot in slots(spec)}
        """By slot label; a tied head has none."""
        self.spare: set[str] = set()
        """A tied head's tensors: often saved a second time, and not needed."""
        if spec.tied:
            self.spare = {name for piece in self.pieces["head"] for name in piece.names}
            self.pieces["head"] = []
        self.checkpoint = _open(model_dir, config)
        every_piece = [piece for pieces in self.pieces.values() for piece in pieces]
        self.wanted = _check(self.checkpoint, every_piece, self.spare)
        """The checkpoint's name of every tensor that is needed."""
        self._device = device
        self._on_progress = on_progress
        self._done = 0
        self._total = sum(self.checkpoint.tensors[name].nbytes for name in self.wanted.values())

    def __enter__(self) -> "SlotReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.checkpoint.__exit__(*exception)

    def divide(self, piece: Piece, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The inverse of reading: every stored tensor's name, and its rows in its own order."""
        start = 0
        for name in piece.names:
            count = self.stored(name).shape[0]
            numbers = torch.arange(count, device=tensor.device)
            order = torch.cat(piece.source.arrange(numbers))
            rows = torch.empty_like(tensor[:count])
            rows[order] = tensor[start : start + count]
            yield name, rows
            start += count

    def stored(self, name: str) -> Stored:
        """What the checkpoint says of a needed tensor."""
        return self.checkpoint.tensors[self.wanted[name]]

    def read(self, slot: Slot) -> list[Matrix]:
        """A slot's tensors in the type they are stored in, rows in the slot's order: its weight and
        its bias, or every expert's gate and up, then every expert's down. Of a tied head: nothing.
        """
        return [self._piece(piece) for piece in self.pieces[slot.label]]

    def will_need(self, slot: Slot) -> None:
        """Have the disk read what this slot takes while another one is worked on."""
        for stored in self._extents(slot):
            stored.will_need()

    def forget(self, slot: Slot) -> None:
        """Hold none of the pages that this slot took in memory. Tensors stay what they are."""
        for stored in self._extents(slot):
            stored.forget()

    def _extents(self, slot: Slot) -> Iterator[Stored]:
        for piece in self.pieces[slot.label]:
            for name in piece.names:
                yield from self.checkpoint.extents(self.wanted[name])

    def _piece(self, piece: Piece) -> Matrix:
        stored = [self._tensor(name) for name in piece.names]
        integers = [each for each in stored if isinstance(each, Quantized)]
        if len(integers) < len(stored):
            return self._rows([floats(each) for each in stored], piece.source)
        return Quantized(
            self._rows([each.values for each in integers], piece.source),
            self._rows([each.scale for each in integers], piece.source),
            integers[0].group_size,
        )

    def _tensor(self, name: str) -> Matrix:
        self._done += self.stored(name).nbytes
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)
        return self.checkpoint.read(self.wanted[name])

    def _rows(self, stored: list[Tensor], source: Joined | GroupedQkv) -> Tensor:
        rows = [part for tensor in stored for part in source.arrange(tensor)]
        return (rows[0] if len(rows) == 1 else torch.cat(rows)).to(self._device)


def _open(model_dir: Path, config: ModelConfig) -> Checkpoint:
    """A model directory's tensors, whatever form they are kept in."""
    if config.compression is None:
        return Checkpoint(model_dir)
    return CompressedCheckpoint(model_dir, config.compression)


def _pieces_of(slot: Slot, source: Source) -> list[Piece]:
    """What the tensors of a slot are made of: its weight and its bias, or each expert's two
    matrices.
    """
    if isinstance(slot, ExpertsSlot):
        assert isinstance(source, PerExpert)
        return list(_expert_pieces(slot, source))
    assert not isinstance(source, PerExpert)
    whole = Joined(source) if isinstance(source, str) else source
    match slot:
        case TableSlot():
            shape: tuple[int, ...] = (slot.rows, slot.width)
        case NormSlot():
            shape = (slot.width,)
        case LinearSlot():
            shape = (slot.out_features, slot.in_features)
    names = [name.format(layer=slot.layer) for name in whole.names]
    pieces = [Piece(tuple(f"{name}.weight" for name in names), shape, whole)]
    if not isinstance(slot, TableSlot) and slot.bias:
        pieces.append(Piece(tuple(f"{name}.bias" for name in names), shape[:1], whole))
    return pieces


def _expert_pieces(slot: ExpertsSlot, source: PerExpert) -> Iterator[Piece]:
    """First every expert's gate and up, then every expert's down."""
    for whole, shape in (
        (Joined(source.gate, source.up), (2 * slot.intermediate, slot.hidden)),
        (Joined(source.down), (slot.hidden, slot.intermediate)),
    ):
        for expert in range(slot.count):
            names = [name.format(layer=slot.layer, expert=expert) for name in whole.names]
            yield Piece(tuple(f"{name}.weight" for name in names), shape, whole)


def _check(checkpoint: Checkpoint, pieces: list[Piece], spare: set[str]) -> dict[str, str]:
    """Compare what the slots need with what is there. Returns the checkpoint's name of every needed
    tensor.
    """
    wanted: dict[str, str] = {}
    missing: list[str] = []
    for piece in pieces:
        for name in piece.names:
            found = checkpoint.find(name)
            if found is None:
                missing.append(name)
            else:
                wanted[name] = found
    if missing:
        raise ModelError(
            f"The checkpoint lacks {_some(missing)}.",
            remedy="Its config.json may describe another model.",
        )
    for piece in pieces:
        _check_shape(piece, [(name, checkpoint.tensors[wanted[name]]) for name in piece.names])
    known = {*wanted.values(), *(checkpoint.find(name) for name in spare)}
    unknown = [name for name in sorted(checkpoint.tensors) if name not in known]
    if strangers := [name for name in unknown if not name.endswith(_BUFFERS)]:
        raise ModelError(
            f"The checkpoint holds {_some(strangers)}, which this architecture has no place for.",
            remedy="Its config.json may describe another model.",
        )
    return wanted


def _check_shape(piece: Piece, stored: list[tuple[str, Stored]]) -> None:
    for name, tensor in stored:
        if tensor.dtype not in _READABLE:
            raise ModelError(
                f"{name} is stored as {tensor.dtype}, a weight format that is not supported.",
                remedy="Use the model's float32, bfloat16 or float16 weights.",
            )
    rows = sum(tensor.shape[0] if tensor.shape else 0 for _, tensor in stored)
    widths = {tensor.shape[1:] for _, tensor in stored}
    if rows != piece.shape[0] or widths != {piece.shape[1:]}:
        found = " and ".join(f"{name} {list(tensor.shape)}" for name, tensor in stored)
        together = " together" if len(stored) > 1 else ""
        raise ModelError(
            f"The checkpoint has {found} where {list(piece.shape)} is expected{together}.",
            remedy="Its config.json may describe another model.",
        )


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
