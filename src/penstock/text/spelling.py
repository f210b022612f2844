"""How the tokens of a vocabulary spell bytes, by the decoder that its tokenizer.json declares.

Three spellings cover the vocabularies in use: byte-level (every character of a token stands for a
byte), metaspace with or without byte fallback ("▁" is a space, "<0x0A>" a byte), and words. In each
of them a token adds the same bytes wherever it stands, except that the first of a text may lose its
leading space. Decoding is then a concatenation, which a stream can do without ever looking back.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers.decoders import Decoder

from penstock.vocabulary.errors import ModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_TOKEN_BY_TOKEN = {"Replace", "ByteFallback", "Metaspace", "WordPiece"}


@dataclass(frozen=True)
class Spelling:
    """The bytes of a token: as the `first` of a text, and as a `later` one."""

    first: Callable[[str], bytes]
    later: Callable[[str], bytes]


def spelling_of(decoder: Decoder | None) -> Spelling:
    """The spelling that `decoder` undoes. Raises `ModelError` if it is not one token at a time."""
    if decoder is None:
        return Spelling(first=str.encode, later=lambda token: b" " + token.encode())
    steps = _flattened(json.loads(decoder.__getstate__()))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return Spelling(first=_from_byte_level, later=_from_byte_level)
    if not _is_token_by_token(steps):
        raise ModelError(
            f"The tokenizer's decoder ({' + '.join(kinds)}) is not supported.",
            remedy="Byte-level, metaspace, byte-fallback and WordPiece vocabularies are.",
        )
    return _as_decoded(decoder, byte_fallback="ByteFallback" in kinds, strips="Strip" in kinds)


def _as_decoded(decoder: Decoder, *, byte_fallback: bool, strips: bool) -> Spelling:
    """Ask the decoder itself about one token at a time, alone and behind another."""

    def byte_of(token: str) -> bytes | None:
        match = _BYTE_TOKEN.fullmatch(token) if byte_fallback else None
        return bytes([int(match[1], 16)]) if match else None

    def first(token: str) -> bytes:
        byte = byte_of(token)
        if byte is None:
            return decoder.decode([token]).encode()
        return b"" if strips and byte == b" " else byte

    def later(token: str) -> bytes:
        byte = byte_of(token)
        return decoder.decode(["a", token])[1:].encode() if byte is None else byte

    return Spelling(first=first, later=later)


def _flattened(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] != "Sequence":
        return [step]
    return [inner for part in step["decoders"] for inner in _flattened(part)]


def _is_token_by_token(steps: list[dict[str, Any]]) -> bool:
    """Whether no step looks past one token, but for a space taken from the start of the text."""
    kinds = [step["type"] for step in steps]
    if kinds[-2:] == ["Fuse", "Strip"]:
        strip = steps[-1]
        takes_one_space = strip["content"] == " " and strip["start"] <= 1 and strip["stop"] == 0
        return set(kinds[:-2]) <= _TOKEN_BY_TOKEN and takes_one_space
    if kinds[-1:] == ["Fuse"]:
        kinds.pop()
    return set(kinds) <= _TOKEN_BY_TOKEN


def _byte_level_alphabet() -> dict[str, int]:
    """The published byte-to-character table of byte-level vocabularies, reversed.

    Printable Latin-1 characters stand for themselves, U+0100 and up for the other bytes in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(rest)
    }


_BYTE_OF = _byte_level_alphabet()


def _from_byte_level(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # an added token, written as it is
        return token.encode()
