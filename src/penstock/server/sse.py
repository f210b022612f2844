"""Server-sent events from byte templates: only what changes from event to event is encoded."""

from typing import Literal

import msgspec

DONE = b"data: [DONE]\n\n"

UsageEvents = Literal["none", "last", "all"]
"""Which events of a stream tell the token counts: where it is not all, the others have null."""

_encode = msgspec.json.Encoder().encode

# Some clients split events by str.splitlines, which takes these for line ends; JSON lets us escape.
_LINE_ENDS = {
    "\x85".encode(): rb"\u0085",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}


def json_text(text: str) -> bytes:
    """`text` as a JSON string that no client takes for several lines."""
    return one_line(_encode(text))


def json_part(value: object) -> bytes:
    """Any part of an event as JSON, likewise."""
    return one_line(_encode(value))


def one_line(encoded: bytes) -> bytes:
    """JSON without the characters outside ASCII that somebody takes for the end of a line."""
    if not encoded.isascii():
        for character, escape in _LINE_ENDS.items():
            encoded = encoded.replace(character, escape)
    return encoded


class EventTemplate:
    """The events of one stream. `fields` are the same in each; `choices` and `usage` differ.

    `usage` counts on while the stream goes on; `told` says which events tell it.
    """

    def __init__(self, fields: dict[str, object], usage: object, told: UsageEvents) -> None:
        head = b"data: " + json_part(fields)[:-1]
        self._before_choice = head + b',"choices":['
        self._after_choice = b"]}\n\n" if told == "none" else b'],"usage":null}\n\n'
        self._before_usage = head + b',"choices":[],"usage":'
        self._usage = usage
        self._told = told

    def choice(self, *parts: bytes) -> bytes:
        """An event with one choice, whose JSON comes in parts."""
        after = self._after_choice
        if self._told == "all":
            after = b'],"usage":%b}\n\n' % json_part(self._usage)
        return b"".join((self._before_choice, *parts, after))

    def end(self) -> bytes:
        """What ends the stream: where it is to be told, what the request took."""
        if self._told == "none":
            return DONE
        return b"%b%b}\n\n%b" % (self._before_usage, json_part(self._usage), DONE)
