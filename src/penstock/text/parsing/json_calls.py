"""Calls written as JSON objects: `{"name": "f", "arguments": {...}}`, keys in any order."""

import json
import re
from collections.abc import Callable

from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading

ARGUMENT_KEYS = ("arguments", "parameters")

_FLAT = re.compile(r'[^"{}\[\]<]+')
_IN_STRING = re.compile(r'[^"\\]+')
_ATOM = re.compile(r'[^\s,:"{}\[\]<]+')


def read_value(reader: Reader, say: Callable[[str], None], *, stop: str = "") -> Reading[bool]:
    """Read one JSON value, saying its text as it comes; False if there is none here.

    Only strings and brackets are looked at, so that what is malformed inside is passed on as it is
    written. The value ends at the latest before `stop`, outside of strings.
    """
    char = yield from reader.peek()
    if char == '"':
        yield from _read_string(reader, say)
    elif char and char in "{[":
        yield from _read_bracketed(reader, say, stop)
    else:
        atom = yield from reader.whole_run(_ATOM)
        say(atom)
        return bool(atom)
    return True


def _read_bracketed(reader: Reader, say: Callable[[str], None], stop: str) -> Reading[None]:
    depth = 0
    while char := (yield from reader.peek()):
        if char == '"':
            yield from _read_string(reader, say)
        elif char in "{[":
            depth += 1
            say(reader.take())
        elif char in "}]":
            depth -= 1
            say(reader.take())
            if not depth:
                return
        elif char == stop[:1] and (yield from reader.sees(stop)):
            return
        else:
            say(reader.run(_FLAT) or reader.take())


def _read_string(reader: Reader, say: Callable[[str], None]) -> Reading[None]:
    say(reader.take())
    while char := (yield from reader.peek()):
        if char not in '"\\':
            say(reader.run(_IN_STRING))
            continue
        say(reader.take())
        if char == '"':
            return
        if (yield from reader.peek()):
            say(reader.take())


class CallReader:
    """Reads one call that is written as a JSON object, and says it as soon as its name is known.

    `stop` is the tag that ends the call even within broken JSON. Where `is_bare`, no tag announces
    a call: then only an object with arguments and with the name of a tool on offer is one.
    """

    def __init__(self, reader: Reader, said: Said, *, stop: str = "", is_bare: bool = False):
        self._reader = reader
        self._said = said
        self._stop = stop
        self._is_bare = is_bare
        self._name: str | None = None
        self._held: str | None = None
        self._has_begun = False

    def read(self) -> Reading[bool]:
        """False if there is no call here: then nothing was said, and what was read is recorded.

        A call that has begun stands. Whatever is wrong behind its arguments is left to be read.
        """
        self._reader.record()
        if not (yield from self._reader.skips("{")):
            return False
        is_whole = yield from self._read_entries()
        if self._has_begun:
            return True
        if not is_whole or self._name is None or (self._is_bare and self._held is None):
            return False
        self._begin(self._held or "{}")
        return True

    def _read_entries(self) -> Reading[bool]:
        """Whether the object was read to its end."""
        reader = self._reader
        yield from reader.skip_space()
        if (yield from reader.skips("}")):
            return True
        while (yield from self._read_entry()):
            yield from reader.skip_space()
            if (yield from reader.skips("}")):
                return True
            if not (yield from reader.skips(",")):
                return False
            yield from reader.skip_space()
        return False

    def _read_entry(self) -> Reading[bool]:
        reader = self._reader
        key = yield from self._decoded_string()
        yield from reader.skip_space()
        if key is None or not (yield from reader.skips(":")):
            return False
        yield from reader.skip_space()
        if self._has_begun:
            return (yield from read_value(reader, _nobody, stop=self._stop))
        if key == "name":
            return (yield from self._read_name())
        if key in ARGUMENT_KEYS:
            return (yield from self._read_arguments())
        return (yield from read_value(reader, _nobody, stop=self._stop))

    def _read_name(self) -> Reading[bool]:
        name = yield from self._decoded_string()
        if not name or self._name is not None:
            return False
        self._name = name
        return not self._is_bare or name in self._said.names

    def _read_arguments(self) -> Reading[bool]:
        if self._held is not None:
            return False
        char = yield from self._reader.peek()
        if char == "{" and self._name is not None:
            self._begin()
            yield from read_value(self._reader, self._said.arguments, stop=self._stop)
            return True
        if char == "{":
            held: list[str] = []
            yield from read_value(self._reader, held.append, stop=self._stop)
            self._held = "".join(held)
            return True
        self._held = yield from self._read_other_arguments(char)
        return self._held is not None

    def _read_other_arguments(self, char: str) -> Reading[str | None]:
        """Some models write the object as a string that holds JSON, or null for no arguments."""
        if char == '"':
            text = yield from self._decoded_string()
            return text if text is not None and is_json_object(text) else None
        atom: list[str] = []
        yield from read_value(self._reader, atom.append)
        return "{}" if atom == ["null"] else None

    def _decoded_string(self) -> Reading[str | None]:
        """What the JSON string here means, or None if there is no valid one."""
        if (yield from self._reader.peek()) != '"':
            return None
        parts: list[str] = []
        yield from _read_string(self._reader, parts.append)
        try:
            text = json.loads("".join(parts))
            text.encode()
        except ValueError:  # malformed, or half of a surrogate pair
            return None
        return str(text)

    def _begin(self, arguments: str = "") -> None:
        assert self._name is not None
        self._reader.recorded()  # from here on it is a call, and never content
        self._said.call(self._name)
        self._said.arguments(arguments)
        self._has_begun = True


def is_json_object(text: str) -> bool:
    """Whether `text` is one JSON object and nothing else."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _nobody(text: str) -> None:
    """Takes what nobody needs to know."""
