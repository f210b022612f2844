"""From a checkpoint to a decoder: every slot is checked, then filled, one tensor at a time."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

from penstock.kernels.ops import Ops
from penstock.kernels.quantization import Matrix, Quantized, floats
from penstock.models.config import ModelConfig, read_config
from penstock.models.decoder import Decoder
from penstock.models.directory import resolve_model_dir
from penstock.models.reading import OnProgress, SlotReader
from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot, TableSlot
from penstock.models.smoothing import groups, smoothed
from penstock.models.weights import Content, NormWeights, Weights

__all__ = ["ModelConfig", "load_decoder", "read_config", "resolve_model_dir"]

ROUNDED = ("int8", "int4")
"""Ways to keep weights as integers, for which outliers are moved out of activations."""


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

    `weights` names how linears keep their matrices; dtype is that of everything else. Where
    matrices are rounded, outliers are moved out of activations first; those that the checkpoint
    keeps as asked are taken as they are. Only the tensors that the spec has a slot for are read, a
    norm and its readers together. `on_progress(bytes done, bytes in all)` counts the checkpoint's
    bytes.
    """
    filled = Weights()
    for slot, content in packed_slots(
        model_dir,
        config,
        weights=weights,
        dtype=dtype,
        device=device,
        ops=ops,
        on_progress=on_progress,
    ):
        filled.put(slot, content)
    return Decoder(config.spec, filled, ops, dtype=dtype, device=device)


def packed_slots(
    model_dir: Path,
    config: ModelConfig,
    *,
    weights: str,
    dtype: torch.dtype,
    device: torch.device,
    ops: Ops,
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[Slot, Content]]:
    """Every slot with what fills it, as `load_decoder` says. Of the checkpoint only a norm and its
    readers are in memory at a time, and what the caller does not keep is gone as well.
    """
    with SlotReader(model_dir, config, device, on_progress) as reader:
        table: list[Matrix] = []
        for group, following in pairwise([*groups(config.spec), []]):
            for slot in following:
                reader.will_need(slot)
            tensors = [reader.read(slot) or table for slot in group]  # a tied head reads nothing
            if group[0].name == "embedding":
                table = tensors[0]
            if weights in ROUNDED:
                tensors = smoothed(group, tensors)
            for slot, parts in zip(group, tensors, strict=True):
                yield slot, content_of(slot, parts, weights, dtype, ops)
            for slot in group:
                reader.forget(slot)


def scheme_of(name: str, weights: str) -> str:
    """How the linear of this name is kept when a model's weights are to be kept as `weights`.

    Where a token's path is decided among a few experts, and where the last layer tells words apart,
    coarse numbers cost most and save least.
    """
    if name == "router" and weights in (*ROUNDED, "fp8"):
        return "float32"
    if name == "head" and weights == "int4":
        return "int8"
    return weights


def content_of(
    slot: Slot, tensors: list[Matrix], weights: str, dtype: torch.dtype, ops: Ops
) -> Content:
    """What fills a slot, made of the tensors that were read for it."""
    match slot:
        case TableSlot():
            return floats(tensors[0])
        case NormSlot():
            norm = [floats(tensor).to(dtype) for tensor in tensors]
            return NormWeights(norm[0], norm[1] if slot.bias else None)
        case LinearSlot():
            scheme = scheme_of(slot.name, weights)
            weight = _as_asked(tensors[0], weights if scheme in ROUNDED else scheme)
            scheme = weight.scheme if isinstance(weight, Quantized) else scheme
            bias = floats(tensors[1]).to(dtype) if slot.bias else None
            return ops.pack_linear(weight, bias, scheme, gated=slot.gated)
        case ExpertsSlot():
            experts = [_as_asked(weight, weights) for weight in tensors]
            return ops.pack_experts(experts[: slot.count], experts[slot.count :], weights)


def _as_asked(weight: Matrix, weights: str) -> Matrix:
    """A checkpoint's integers where they are what is asked for, else floats."""
    if isinstance(weight, Quantized) and weight.scheme == weights:
        return weight
    return floats(weight)
