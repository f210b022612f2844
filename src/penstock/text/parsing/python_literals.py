"""Python literals, read by hand: nothing is ever evaluated.

Strings, numbers, True, False, None, lists, tuples and dictionaries with string keys, and JSON's
true, false and null, which models mix in. What JSON cannot say is malformed.
"""

import json
import math
import re
from contextlib import suppress
from typing import Any

from penstock.text.parsing.reader import Reader, Reading

MAX_DEPTH = 64
_MAX_NUMBER_LEN = 64

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"[\w.+-]+")
_PLAIN = {quote: re.compile(rf"[^{quote}\\\n]+") for quote in "'\""}
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPES: dict[str, str] = dict(
    zip("\\'\"/abfnrtv0\n", [*"\\'\"/\a\b\f\n\r\t\v\0", ""], strict=True)
)
_HEX_LEN = {"x": 2, "u": 4, "U": 8}
_CLOSING = {"[": "]", "(": ")"}


class Malformed(Exception):
    """What stands here is no literal."""


def read_literal(reader: Reader, depth: int = 0) -> Reading[Any]:
    """The value of the literal here. Raises `Malformed`, having read up to where that shows."""
    if depth > MAX_DEPTH:
        raise Malformed
    char = yield from reader.peek()
    if not char:
        raise Malformed
    if char in "'\"":
        return (yield from _read_string(reader))
    if char in _CLOSING:
        return (yield from _read_items(reader, _CLOSING[char], depth))
    if char == "{":
        return (yield from _read_entries(reader, depth))
    if char in "+-." or char.isdecimal():
        return _number((yield from reader.whole_run(_NUMBER)))
    word = yield from reader.whole_run(_WORD)
    if word not in _WORDS:
        raise Malformed
    return _WORDS[word]


def _read_items(reader: Reader, closing: str, depth: int) -> Reading[Any]:
    """A list or a tuple; a single value in parentheses is that value."""
    reader.take()
    items: list[Any] = []
    ends_with_comma = True
    while True:
        yield from reader.skip_space()
        if (yield from reader.skips(closing)):
            is_tuple = closing == "]" or ends_with_comma or len(items) != 1
            return items if is_tuple else items[0]
        if not ends_with_comma:
            raise Malformed
        items.append((yield from read_literal(reader, depth + 1)))
        yield from reader.skip_space()
        ends_with_comma = yield from reader.skips(",")


def _read_entries(reader: Reader, depth: int) -> Reading[dict[str, Any]]:
    reader.take()
    entries: dict[str, Any] = {}
    may_go_on = True
    while True:
        yield from reader.skip_space()
        if (yield from reader.skips("}")):
            return entries
        key = yield from read_literal(reader, depth + 1)
        yield from reader.skip_space()
        if not may_go_on or not isinstance(key, str) or not (yield from reader.skips(":")):
            raise Malformed
        yield from reader.skip_space()
        entries[key] = yield from read_literal(reader, depth + 1)
        yield from reader.skip_space()
        may_go_on = yield from reader.skips(",")


def _read_string(reader: Reader) -> Reading[str]:
    quote = reader.take()
    if (yield from reader.skips(quote * 2)):
        return (yield from _read_string_body(reader, quote * 3))
    return (yield from _read_string_body(reader, quote))


def _read_string_body(reader: Reader, closing: str) -> Reading[str]:
    parts: list[str] = []
    plain = _PLAIN[closing[0]]
    while True:
        if (yield from reader.skips(closing)):
            break
        char = yield from reader.peek()
        if not char or (char == "\n" and len(closing) == 1):
            raise Malformed
        if char == "\\":
            parts.append((yield from _read_escape(reader)))
        else:
            parts.append(reader.run(plain) or reader.take())
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise Malformed from None
    return text


def _read_escape(reader: Reader) -> Reading[str]:
    reader.take()
    kind = yield from reader.peek()
    if not kind:
        raise Malformed
    reader.take()
    if kind not in _HEX_LEN:
        return _ESCAPES.get(kind, "\\" + kind)  # Python too leaves what it does not know
    digits = ""
    for _ in range(_HEX_LEN[kind]):
        if (yield from reader.peek()):
            digits += reader.take()
    try:
        return chr(int(digits, 16))
    except (ValueError, OverflowError):
        raise Malformed from None


def _number(text: str) -> int | float:
    if len(text) > _MAX_NUMBER_LEN:
        raise Malformed
    with suppress(ValueError):  # what is no integer may be another number
        return int(text)
    try:
        value = float(text)
    except ValueError:
        raise Malformed from None
    if not math.isfinite(value):
        raise Malformed
    return value


def as_json(value: Any) -> str:
    """A value that was read, as JSON."""
    return json.dumps(value, ensure_ascii=False)
