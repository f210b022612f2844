"""Texts to measure a model on: from a file of one's own, or what every Python has with it."""

import json
from collections.abc import Iterator
from pathlib import Path

from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import SettingsError


def sample_token_ids(
    tokenizer: Tokenizer, file: Path | None, *, num_tokens: int, row_len: int
) -> list[list[int]]:
    """Token ids of texts, cut into rows of at most row_len, num_tokens of them or as many as there
    are.

    The file is a text, or has a JSON object with a "text" on every line if its name ends in .jsonl.
    Without one, it is the language reference that Python's `help()` shows. Raises `SettingsError`
    if that cannot be read.
    """
    rows: list[list[int]] = []
    left = num_tokens
    for text in _texts(file):
        token_ids = tokenizer.encode(text)[:left]
        rows += [token_ids[start : start + row_len] for start in range(0, len(token_ids), row_len)]
        left -= len(token_ids)
        if left == 0:
            break
    if not rows:
        raise SettingsError(f"{file} has no text to measure the model on.")
    return rows


def _texts(file: Path | None) -> Iterator[str]:
    if file is None:
        yield from _language_reference()
        return
    try:
        if file.suffix != ".jsonl":
            yield file.read_text("utf-8")
            return
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _text_of(line, f"{file}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from error


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise SettingsError(f'{where} is not a JSON object with a "text".')
    return text


def _language_reference() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise SettingsError(
            "This Python came without its language reference, the text usually measured on.",
            remedy="Name a text with --calibration.",
        ) from error
    yield from topics.values()
