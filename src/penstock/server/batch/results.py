"""The output of a batch: lines that are there in full, or not at all."""

import fcntl
import os
from pathlib import Path
from typing import Self

import msgspec

from penstock.server.batch.ledger import Ledger
from penstock.server.batch.lines import AnsweredLine
from penstock.vocabulary.errors import SettingsError

_CHUNK_BYTES = 1 << 16

_decode_answered = msgspec.json.Decoder(AnsweredLine).decode


class Results:
    """A file of answers, to which one process at a time appends. Nothing waits in a buffer, so what
    was written survives whatever ends this process.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def resume(cls, path: Path, ledger: Ledger) -> Self:
        """Open a file, drop the line that an earlier run could not finish, and note in `ledger`
        what the others answer.

        Raises `SettingsError` if the file is in use, or holds something else.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise SettingsError(f"Cannot write {path}: {error.strerror}.") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsError(f"{path} is being written by another process.") from None
            _check_is_ours(path)
            os.ftruncate(descriptor, _whole_bytes(descriptor))
            _note_answers(path, ledger)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def add(self, line: bytes) -> None:
        """Append a line."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """Let others write."""
        os.close(self._descriptor)


def _whole_bytes(descriptor: int) -> int:
    """The length of the file up to its last line end."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _CHUNK_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _check_is_ours(path: Path) -> None:
    """Nothing is to be cut off from a file that only looks like an unfinished line of ours."""
    with path.open("rb") as file:
        start = file.read(len(_START))
    if start and not _START.startswith(start):
        raise _foreign(path, 1)


_START = b'{"id":"batch_req_'


def _note_answers(path: Path, ledger: Ledger) -> None:
    with path.open("rb") as file:
        for place, line in enumerate(file, start=1):
            try:
                answered = _decode_answered(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise _foreign(path, place) from None
            if answered.number is None:
                raise _foreign(path, place)
            ledger.note_answered(answered.number, answered.custom_id)


def _foreign(path: Path, place: int) -> SettingsError:
    return SettingsError(
        f"{path}, line {place}, is no answer that run-batch has written.",
        remedy="Choose another file for the output.",
    )
