"""From a checkpoint to a decoder: every slot is checked, then filled, one tensor at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.models.checkpoint import Checkpoint, Stored
from penstock.models.config import ModelConfig, family_of, read_config
from penstock.models.decoder import Decoder
from penstock.models.directory import resolve_model_dir
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, TableSlot, slots
from penstock.models.sources import GroupedQkv, Joined, PerExpert, Source
from penstock.models.weights import NormWeights, Weights
from penstock.vocabulary.errors import ModelError

__all__ = ["ModelConfig", "load_decoder", "read_config", "resolve_model_dir"]

OnProgress: TypeAlias = Callable[[int, int], None]
_FLOATS = {"F64", "F32", "F16", "BF16"}
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


def load_decoder(
    model_dir: Path,
    config: ModelConfig,
    *,
    weights: str,
    dtype: torch.dtype,
    device: torch.device,
    ops: Ops,
    on_progress: OnProgress | None = None,
) -> Decoder:
    """Make a decoder from a model directory.

    `weights` names how linears keep their matrices; dtype is that of everything else. Only the
    tensors that the spec has a slot for are read, one after the other. `on_progress(bytes done,
    bytes in all)` counts the checkpoint's bytes.
    """
    sources = family_of(config.architecture).weights(config.spec)
    with Checkpoint(model_dir) as checkpoint:
        places = [(slot, _pieces(slot, sources[slot.name])) for slot in slots(config.spec)]
        pieces = [piece for _, parts in places for piece in parts]
        wanted = _check(checkpoint, pieces, spare=_spare(config, sources))
        reader = _Reader(checkpoint, wanted, device, on_progress)
        filled = Weights({}, {}, {}, {})
        for slot, parts in places:
            _fill(slot, [reader.read(piece) for piece in parts], filled, weights, dtype, ops)
    if config.spec.tied:
        filled.linears["head"] = ops.pack_linear(
            filled.tables["embedding"], None, scheme_of("head", weights)
        )
    return Decoder(config.spec, filled, ops, dtype=dtype, device=device)


def scheme_of(name: str, weights: str) -> str:
    """How the linear of this name is kept when a model's weights are to be kept as `weights`.

    Where a token's path is decided among a few experts, and where the last layer tells words apart,
    coarse numbers cost most and save least.
    """
    if name == "router" and weights in ("int8", "int4"):
        return "float32"
    if name == "head" and weights == "int4":
        return "int8"
    return weights


def _fill(
    slot: Slot,
    tensors: list[Tensor],
    filled: Weights,
    weights: str,
    dtype: torch.dtype,
    ops: Ops,
) -> None:
    match slot:
        case TableSlot():
            filled.tables[slot.label] = tensors[0]
        case NormSlot():
            bias = tensors[1].to(dtype) if slot.bias else None
            filled.norms[slot.label] = NormWeights(tensors[0].to(dtype), bias)
        case LinearSlot():
            bias = tensors[1].to(dtype) if slot.bias else None
            filled.linears[slot.label] = ops.pack_linear(
                tensors[0], bias, scheme_of(slot.name, weights), gated=slot.gated
            )
        case ExpertsSlot():
            packed = ops.pack_experts(tensors[: slot.count], tensors[slot.count :], weights)
            filled.experts[slot.label] = packed


def _pieces(slot: Slot, source: Source) -> list[Piece]:
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


def _spare(config: ModelConfig, sources: dict[str, Source]) -> set[str]:
    """Tensors that may be there and are not needed: a tied head is often saved a second time."""
    head = sources.get("head")
    return {f"{head}.weight"} if config.spec.tied else set()


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
        if tensor.dtype not in _FLOATS:
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


class _Reader:
    """Reads pieces in the type they are stored in, onto one device, counting bytes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        wanted: dict[str, str],
        device: torch.device,
        on_progress: OnProgress | None,
    ) -> None:
        self.checkpoint = checkpoint
        self.wanted = wanted
        self.device = device
        self.on_progress = on_progress
        self.done = 0
        self.total = sum(checkpoint.tensors[name].nbytes for name in wanted.values())

    def read(self, piece: Piece) -> Tensor:
        """A tensor of the piece's shape, its rows in the slot's order."""
        rows: list[Tensor] = []
        for name in piece.names:
            found = self.wanted[name]
            rows += piece.source.arrange(self.checkpoint.read(found))
            self.done += self.checkpoint.tensors[found].nbytes
            if self.on_progress is not None:
                self.on_progress(self.done, self.total)
        return (rows[0] if len(rows) == 1 else torch.cat(rows)).to(self.device)
