"""Mistral: `[TOOL_CALLS][{"name": ..., "arguments": ...}]`, newer `[TOOL_CALLS]name[ARGS]{...}`.

The tokenizers of versions 3, 7, 11 and 13 in https://github.com/mistralai/mistral-common
"""

import re

from penstock.text.parsing.json_calls import CallReader, read_value
from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.tool_format import Frame, ToolFormat, short_id

CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

_NAME = re.compile(r"[\w.-]+")


def _read(reader: Reader, said: Said) -> Reading[None]:
    while True:
        tag, space = yield from reader.until((CALLS,), said.content)
        if not tag:
            said.end(space)
            return
        lead = space + tag + (yield from reader.skip_space())
        char = yield from reader.peek()
        yield from (
            _read_objects(reader, said, lead)
            if char and char in "[{"
            else _read_named(reader, said, lead)
        )


def _read_objects(reader: Reader, said: Said, lead: str) -> Reading[None]:
    """An array of calls, or one without its brackets. `lead` is content if there is no call."""
    if (yield from reader.skips("[")):
        lead += "[" + (yield from reader.skip_space())
    while (yield from CallReader(reader, said).read()):
        lead = yield from reader.skip_space()
        if (yield from reader.skips("]")):
            return
        if (yield from reader.skips(",")):
            lead += "," + (yield from reader.skip_space())
    lead += reader.recorded()
    if lead.strip() or not said.ends_with_call:
        said.content(lead)


def _read_named(reader: Reader, said: Said, lead: str) -> Reading[None]:
    """A call whose name stands before its arguments, perhaps with an id of the model's own."""
    reader.record()
    id_ = None
    name = yield from reader.whole_run(_NAME)
    if (yield from reader.skips(CALL_ID)):
        id_ = yield from reader.whole_run(_NAME)
    yield from reader.skips(ARGS)
    yield from reader.skip_space()
    if not name or (yield from reader.peek()) != "{":
        said.content(lead + reader.recorded())
        return
    reader.recorded()
    said.call(name, id_)
    yield from read_value(reader, said.arguments)


def _frame(name: str, template_source: str) -> Frame:
    if ARGS in template_source:
        return Frame(f"{CALLS}{name}{ARGS}", "")
    return Frame(f'{CALLS}[{{"name": "{name}", "arguments": ', "}]")


MISTRAL = ToolFormat(
    name="mistral",
    read=_read,
    tags=(CALLS, CALL_ID, ARGS),
    is_taught_by=lambda source: CALLS in source,
    new_id=short_id,
    trigger=CALLS,
    frame=_frame,
)
