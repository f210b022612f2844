"""One safetensors file, mapped into memory, and how to write one that maps well.

The format is eight bytes of header length, a JSON header, then the tensors without gaps
(https://huggingface.co/docs/safetensors). It is read here rather than by the library because only
who knows where a tensor lies can tell the kernel which pages are wanted next and which no more.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from penstock.vocabulary.errors import ModelError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 64
"""Bytes: a cache line, and what torch gives its own tensors."""
_FILLER = "filler."
"""How tensors are named that only move the next one to an aligned place."""
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # as the library has it
_MAX_NUMBER = 2**48


@dataclass(frozen=True, slots=True)
class Stored:
    """Where in its file a tensor lies, and what it looks like."""

    file: "SafetensorsFile"
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def read(self) -> Tensor:
        """The tensor, on the CPU: a view of the mapped file, whose pages come in when touched.
        Raises ValueError for a type that there is not.
        """
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            raise ValueError(f"a tensor is of the unknown type {self.dtype}")
        if not self.nbytes:
            return torch.empty(self.shape, dtype=dtype)
        data = torch.frombuffer(
            self.file.mapped, dtype=torch.uint8, count=self.nbytes, offset=self.start
        )
        if self.start % dtype.itemsize:  # old writers did not align; torch insists
            data = data.clone()
        return data.view(dtype).view(self.shape)

    def will_need(self) -> None:
        """Have the kernel read the tensor ahead."""
        self._advise(mmap.MADV_WILLNEED)

    def forget(self) -> None:
        """Give its pages back. Who looks at it again has them read again."""
        self._advise(mmap.MADV_DONTNEED)

    def _advise(self, advice: int) -> None:
        if self.nbytes:
            first = self.start - self.start % mmap.PAGESIZE
            self.file.mapped.madvise(advice, first, self.start + self.nbytes - first)


class SafetensorsFile:
    """A file's header, read and doubted, and its tensors by name. Raises `ModelError` if it is
    damaged. It stays mapped for as long as a tensor of it lives.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                # A private mapping: what is never written is never copied, and torch, which has no
                # read-only tensors, need not warn.
                self.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            header, self._data = _header(self.mapped, size)
            self.tensors = dict(self._entries(header, size))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path.name} is not a readable safetensors file: {error}.",
                remedy="It is truncated or damaged: fetch it again.",
            ) from error

    def _entries(self, header: dict[str, Any], size: int) -> Iterator[tuple[str, Stored]]:
        ends = [self._data]
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            stored = self._entry(name, entry, size)
            ends.append(stored.start + stored.nbytes)
            if not name.startswith(_FILLER):
                yield name, stored
        if max(ends) != size:
            raise ValueError(f"its tensors end at {max(ends)} of {size} bytes")

    def _entry(self, name: str, entry: Any, size: int) -> Stored:
        try:
            dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, start, end]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"its header does not say where {name} is") from error
        if not isinstance(dtype, str) or any(type(number) is not int for number in numbers):
            raise ValueError(f"its header does not say where {name} is")
        if min(numbers) < 0 or max(numbers) > _MAX_NUMBER:
            raise ValueError(f"{name} has an impossible size")
        if start > end or self._data + end > size:
            raise ValueError(f"{name} would lie beyond its end")
        if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != end - start:
            raise ValueError(f"{name} is larger or smaller than its shape")
        return Stored(self, dtype, tuple(shape), self._data + start, end - start)


def _header(mapped: mmap.mmap, size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    length = int.from_bytes(mapped[:_LENGTH_BYTES], "little")
    if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise ValueError("its header is longer than the file")
    data = _LENGTH_BYTES + length
    try:
        header = json.loads(mapped[_LENGTH_BYTES:data])
    except RecursionError as error:
        raise ValueError("its header is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, data


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write CPU tensors so that each begins at a multiple of 64 bytes. Returns the file's SHA-256.

    The format knows no gaps, so they are tensors, too. Nothing is synced. Raises OSError.
    """
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + nbytes],
        }
        end += nbytes
        if gap := -end % ALIGNMENT:
            header[f"{_FILLER}{name}"] = {
                "dtype": "U8",
                "shape": [gap],
                "data_offsets": [end, end + gap],
            }
            end += gap
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        out = _Hashed(file)
        out.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for tensor in tensors.values():
            data = tensor.contiguous().reshape(-1).view(torch.uint8)
            out.write(data.numpy().data)
            out.write(bytes(-data.numel() % ALIGNMENT))
    return out.digest.hexdigest()


class _Hashed:
    """Writes to a file and to its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
