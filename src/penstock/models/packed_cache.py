"""Packed weights of models that were loaded before, under the user's cache directory.

An entry is a snapshot without a model's other files. Its name is a checksum of all that decides
what is in it, so an entry never changes. It is written under a hidden name and renamed when it is
safe on the disk; hidden directories that nobody holds locked are what a crash left behind.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.models.checkpoint import INDEX
from penstock.models.manifest import FORMAT, Origin, is_snapshot
from penstock.models.snapshot import Snapshot, sync
from penstock.models.weights import Weights
from penstock.vocabulary.errors import ModelError

_GIB = 2**30
_LEFT_FREE = _GIB
"""Bytes of the disk that others may need."""
_STALE_S = 24 * 3600
_CODE = Path(__file__).parents[1]
_NATIVE = "penstock.kernels.cpu._native"

log = logging.getLogger("penstock.cache")


def cache_root() -> Path:
    """penstock/packed in the directory that the XDG specification names for caches
    (https://specifications.freedesktop.org/basedir-spec/latest/).
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(named) if named.startswith("/") else Path("~/.cache").expanduser()
    return home / "penstock" / "packed"


def cache_key(model_dir: Path, origin: Origin) -> str:
    """The name of the entry for a model directory as it is now, packed like this by this code."""
    read = [model_dir / "config.json", model_dir / INDEX, *sorted(model_dir.glob("*.safetensors"))]
    found = [(path.name, path.stat()) for path in read if path.is_file()]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
    decisive = (FORMAT, str(model_dir.resolve()), files, msgspec.to_builtins(origin), _code())
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()[:32]


def _code() -> str:
    """A checksum of all code that packs: a version number would not tell one working tree from the
    next.
    """
    native = getattr(sys.modules.get(_NATIVE), "__file__", None)
    sources = [path for layer in ("kernels", "models") for path in (_CODE / layer).rglob("*.py")]
    digest = hashlib.sha256()
    for path in [*sorted(sources), *([Path(native)] if native else [])]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one model, and since when nobody has asked for it."""

    key: str
    origin: Origin
    nbytes: int
    used_at: float

    def is_stale(self, newer: Origin) -> bool:
        """Whether it is an earlier state of the same, and out of use."""
        mine, theirs = self.origin, newer
        return (mine.source, mine.weights, mine.dtype, mine.instruction_set) == (
            theirs.source,
            theirs.weights,
            theirs.dtype,
            theirs.instruction_set,
        ) and self.used_at < time.time() - _STALE_S


class PackedCache:
    """The entries under one directory. Any number of processes may use it at once."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._publishing: list[threading.Thread] = []

    def find(self, key: str, restore: Callable[[Snapshot], Weights]) -> Weights | None:
        """What `restore` makes of the entry of this name. None if there is no such entry; one that
        is damaged is dropped with a word.
        """
        directory = self.root / key
        if not is_snapshot(directory):
            return None
        try:
            weights = restore(Snapshot(directory))
        except (ModelError, OSError) as error:
            log.warning("weights are packed anew: %s", getattr(error, "message", error))
            self._drop(key)
            return None
        with contextlib.suppress(OSError):  # of a cache that may be read only
            os.utime(directory)
        return weights

    @contextlib.contextmanager
    def draft(self, key: str, expected_bytes: int) -> Iterator[Path]:
        """A directory to write an entry into. When the context ends without an error, a thread has
        the disk sync it and gives it its name; what was mapped stays mapped.

        Raises OSError where it cannot be written or would be too large.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self._check_room(expected_bytes)
        directory = Path(tempfile.mkdtemp(prefix=".", dir=self.root))
        lock = os.open(directory, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
            raise
        thread = threading.Thread(target=self._publish, args=(directory, lock, key), name="cache")
        thread.start()
        self._publishing.append(thread)

    def wait(self) -> None:
        """Until every finished draft has its name."""
        for thread in self._publishing:
            thread.join()

    def entries(self) -> list[Entry]:
        """All that is kept, what was used last first. Entries that cannot be read are dropped."""
        found = []
        for directory in self.root.glob("[!.]*"):
            try:
                snapshot, used_at = Snapshot(directory), directory.stat().st_mtime
            except (ModelError, OSError):
                self._drop(directory.name)
                continue
            found.append(Entry(directory.name, snapshot.origin, snapshot.nbytes, used_at))
        return sorted(found, key=lambda entry: -entry.used_at)

    def clear(self) -> None:
        """Drop everything that nobody is writing. Who uses an entry keeps what is mapped."""
        for directory in self.root.glob("[!.]*"):
            self._drop(directory.name)
        self._sweep()

    def _check_room(self, expected_bytes: int) -> None:
        needed = f"{expected_bytes / _GIB:.1f} GiB"
        if expected_bytes > self.limit_bytes:
            raise OSError(f"{needed} are more than the cache may take")
        if shutil.disk_usage(self.root).free < expected_bytes + _LEFT_FREE:
            raise OSError(f"{self.root} has no room for {needed}")

    def _publish(self, directory: Path, lock: int, key: str) -> None:
        try:
            sync(directory)
            directory.rename(self.root / key)
            self._evict(key)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            if not is_snapshot(self.root / key):  # else another process was faster
                log.warning("packed weights are not cached: %s", error)
        finally:
            os.close(lock)

    def _evict(self, key: str) -> None:
        """Make room for the entry just written: what is out of date goes, then what was not used
        for longest.
        """
        entries = self.entries()
        newest = next((entry for entry in entries if entry.key == key), None)
        total = newest.nbytes if newest else 0
        for entry in entries:
            if entry.key != key:
                total += entry.nbytes
                if total > self.limit_bytes or (newest and entry.is_stale(newest.origin)):
                    total -= entry.nbytes
                    self._drop(entry.key)

    def _drop(self, key: str) -> None:
        with contextlib.suppress(OSError):  # another process has dropped it, or nobody may
            hidden = Path(tempfile.mkdtemp(prefix=".", dir=self.root))
            try:
                (self.root / key).rename(hidden / key)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what writers left behind that are no more."""
        for directory in self.root.glob(".*"):
            with contextlib.suppress(OSError):  # locked, or gone
                lock = os.open(directory, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory)
                finally:
                    os.close(lock)
