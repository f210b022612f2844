"""What snapshot.json says: how weights were packed, what fills which slot, and every file's size
and checksum.
"""

import hashlib
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from penstock.kernels.packed import Fact
from penstock.vocabulary.errors import ModelError

MANIFEST = "snapshot.json"
FORMAT = 1
"""Of the directory as a whole. Whoever changes what is written there raises it."""

SlotKind: TypeAlias = Literal["table", "norm", "linear", "experts"]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fills one slot: facts about it, and its parts, each the tensor `<slot>.<part>`."""

    kind: SlotKind
    facts: dict[str, Fact]
    parts: list[str]


class FileFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file beside the manifest."""

    size: int
    sha256: str


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of what, by what and how weights were packed."""

    source: str
    """The model as it was named."""
    architecture: str
    num_parameters: int
    penstock: str
    """The version that wrote it; others may read it as long as the packing is the same."""
    instruction_set: str
    packing_version: int
    weights: str
    dtype: str
    """The type of activations, which norms and biases were brought to."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that is to be known before a byte of weights is touched."""

    format: int
    origin: Origin
    slots: dict[str, Kept]
    files: dict[str, FileFacts]


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest and its checksum, without which a wrong size or scheme would be believed."""

    snapshot: Manifest
    sha256: str


class _Outline(msgspec.Struct, frozen=True):
    """As much as every format to come will have."""

    format: int


class _Envelope(msgspec.Struct, frozen=True):
    snapshot: _Outline


def is_snapshot(directory: Path) -> bool:
    """Whether a model directory holds packed weights rather than a checkpoint."""
    return (directory / MANIFEST).is_file()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write snapshot.json, which makes a snapshot of a directory. Raises OSError."""
    text = msgspec.json.encode(_Sealed(manifest, _checksum(manifest)))
    (directory / MANIFEST).write_bytes(msgspec.json.format(text, indent=1) + b"\n")


def read_manifest(directory: Path) -> Manifest:
    """Read snapshot.json. Raises `ModelError` if it is damaged, or of another format."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
        found = msgspec.json.decode(content, type=_Envelope).snapshot.format
        if found != FORMAT:
            raise ModelError(
                f"{directory} is a snapshot of format {found}; this version of Penstock reads "
                f"format {FORMAT}.",
                remedy="Make it anew with penstock snapshot.",
            )
        sealed = msgspec.json.decode(content, type=_Sealed)
        for name in sealed.snapshot.files:
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a file beside it")
        if sealed.sha256 != _checksum(sealed.snapshot):
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(f"{path} cannot be read: {error}") from error
    return sealed.snapshot


def damaged(what: str) -> ModelError:
    """The error for a snapshot that is not what was written."""
    return ModelError(f"{what}.", remedy="The snapshot is damaged: copy it again, or make it anew.")


def _checksum(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()
