"""Llama 4, small Llama 3.2, ToolACE: an answer that is a list of calls, `[f(a=1), g(b="x")]`.

https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_2
"""

import re
from typing import Any

from penstock.text.parsing.pieces import Said
from penstock.text.parsing.python_literals import Malformed, as_json, read_literal
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.tool_format import ToolFormat, openai_id

START, END = "<|python_start|>", "<|python_end|>"

_NAME = re.compile(r"[\w.-]+")
_KEYWORD = re.compile(r"\w+")


def _read(reader: Reader, said: Said) -> Reading[None]:
    """The list is the whole answer. A call is said when its last parenthesis has been read."""
    lead = yield from reader.skip_space()
    if (yield from reader.skips(START)):
        lead += START + (yield from reader.skip_space())
    reader.record()
    may_go_on = yield from reader.skips("[")
    while may_go_on:
        try:
            name, arguments = yield from _read_call(reader, said)
        except Malformed:
            break
        said.call(name)
        said.arguments(as_json(arguments))
        lead = ""
        reader.record()
        yield from reader.skip_space()
        may_go_on = yield from reader.skips(",")
    if said.ends_with_call and (yield from reader.skips("]")):
        reader.record()
        yield from reader.skip_space()
        yield from reader.skips(END)
        yield from reader.skip_space()
        if not (yield from reader.peek()):
            return
    said.content(lead + reader.recorded())
    yield from reader.rest(said.content)


def _read_call(reader: Reader, said: Said) -> Reading[tuple[str, dict[str, Any]]]:
    yield from reader.skip_space()
    name = yield from reader.whole_run(_NAME)
    if name not in said.names or not (yield from reader.skips("(")):
        raise Malformed
    arguments: dict[str, Any] = {}
    may_go_on = True
    while True:
        yield from reader.skip_space()
        if (yield from reader.skips(")")):
            return name, arguments
        keyword = yield from reader.whole_run(_KEYWORD)
        yield from reader.skip_space()
        if not may_go_on or not keyword or keyword in arguments:
            raise Malformed
        if not (yield from reader.skips("=")):
            raise Malformed
        yield from reader.skip_space()
        arguments[keyword] = yield from read_literal(reader)
        yield from reader.skip_space()
        may_go_on = yield from reader.skips(",")


PYTHONIC = ToolFormat(
    name="pythonic",
    read=_read,
    tags=(START, END),
    is_taught_by=lambda source: "[func_name1(" in source,
    new_id=openai_id,
)
