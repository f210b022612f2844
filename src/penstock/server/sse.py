"""Server-sent events from byte templates: only what changes from event to event is encoded."""

import msgspec

DONE = b"data: [DONE]\n\n"

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
    """The events of one stream. `fields` are the same in each; `choices` and `usage` differ."""

    def __init__(self, fields: dict[str, object], *, include_usage: bool) -> None:
        head = b"data: " + json_part(fields)[:-1]
        self._before_choice = head + b',"choices":['
        self._after_choice = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._before_usage = head + b',"choices":[],"usage":'

    def choice(self, *parts: bytes) -> bytes:
        """An event with one choice, whose JSON comes in parts."""
        return b"".join((self._before_choice, *parts, self._after_choice))

    def usage(self, usage: object) -> bytes:
        """The event that tells what the request took."""
        return self._before_usage + json_part(usage) + b"}\n\n"
