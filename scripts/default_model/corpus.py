"""The text the default model learns from: the running interpreter's own standard library.

Nothing is downloaded. The same interpreter version gives the same documents, and
`fingerprint` says so in one line.
"""

import hashlib
import sysconfig
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

HELD_OUT_ONE_IN = 25
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idle_test", "__pycache__", "__phello__"}
# Machine-made tables: they would teach columns of numbers, not Python.
TABLE_MARKS = ("decoding_table", "decoding_map")
TABLE_FILES = {"html/entities.py", "pydoc_data/topics.py"}


class Document(NamedTuple):
    """One text of the corpus; `name` is its path below the library's root, with slashes."""

    name: str
    text: str

    @property
    def is_held_out(self) -> bool:
        """True for about one document in 25, chosen by its name alone and never trained on."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


class Corpus(NamedTuple):
    """All documents, sorted by name and split."""

    training: list[Document]
    held_out: list[Document]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every name and text: equal fingerprints mean equal corpora."""
        digest = hashlib.sha256()
        for document in sorted(self.training + self.held_out):
            for part in document:
                data = part.encode()
                digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def load_corpus() -> Corpus:
    """Read the standard library's sources and the language reference."""
    documents = sorted([*library_sources(), *reference_topics()])
    return Corpus(
        training=[document for document in documents if not document.is_held_out],
        held_out=[document for document in documents if document.is_held_out],
    )


def library_sources() -> Iterable[Document]:
    """Every module people would read: no tests, no generated tables, no build settings."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not is_wanted(relative):
            continue
        text = decode(path.read_bytes())
        if text and not any(mark in text for mark in TABLE_MARKS):
            yield Document(relative.as_posix(), text)


def is_wanted(path: Path) -> bool:
    """False for tests, third-party code, tables, and files that describe one machine's build."""
    if SKIPPED_FOLDERS.intersection(path.parts) or path.as_posix() in TABLE_FILES:
        return False
    return not (path.name.startswith("_sysconfigdata") or path.parts[0].startswith("config-"))


def decode(data: bytes) -> str:
    """The text with plain newlines, or nothing when it is not UTF-8."""
    try:
        return data.decode("utf-8").replace("\r\n", "\n").strip("\n") + "\n"
    except UnicodeDecodeError:
        return ""


def reference_topics() -> Iterable[Document]:
    """The language reference as `help()` shows it: one document a topic."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    for name, text in topics.items():
        yield Document(f"pydoc_data/topics/{name}.txt", text.strip("\n") + "\n")
