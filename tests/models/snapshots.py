"""Snapshots of tiny checkpoints, and decoders from them."""

import shutil
from pathlib import Path

import torch

from penstock.kernels.ops import REFERENCE, Ops
from penstock.models.decoder import Decoder
from penstock.models.directory import beside_weights
from penstock.models.loading import load_decoder, packed_slots, read_config
from penstock.models.manifest import Origin
from penstock.models.snapshot import Snapshot, write_snapshot

CPU = torch.device("cpu")


def origin(weights: str = "float32", ops: Ops = REFERENCE, **changes: object) -> Origin:
    facts = {
        "source": "tiny",
        "architecture": "LlamaForCausalLM",
        "num_parameters": 1000,
        "penstock": "0",
        "instruction_set": ops.packing.instruction_set,
        "packing_version": ops.packing.version,
        "weights": weights,
        "dtype": "float32",
    }
    return Origin(**(facts | changes))


def write(
    model_dir: Path,
    directory: Path,
    weights: str = "float32",
    ops: Ops = REFERENCE,
    **changes: object,
) -> Path:
    """A snapshot of a checkpoint; changes are to what it says of its origin."""
    directory.mkdir()
    filled = packed_slots(
        model_dir,
        read_config(model_dir),
        weights=weights,
        dtype=torch.float32,
        device=CPU,
        ops=ops,
    )
    write_snapshot(directory, filled, origin(weights, ops, **changes), beside_weights(model_dir))
    return directory


def restored(directory: Path, ops: Ops = REFERENCE, *, verify: bool = True) -> Decoder:
    """The decoder that a snapshot serves."""
    snapshot = Snapshot(directory)
    if verify:
        snapshot.verify()
    spec = read_config(directory).spec
    return Decoder(spec, snapshot.weights(spec, ops, CPU), ops, dtype=torch.float32, device=CPU)


def packed(model_dir: Path, weights: str = "float32", ops: Ops = REFERENCE) -> Decoder:
    """The decoder that the checkpoint itself gives."""
    return load_decoder(
        model_dir,
        read_config(model_dir),
        weights=weights,
        dtype=torch.float32,
        device=CPU,
        ops=ops,
    )


def copied(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to))
