"""Llama 3: an answer that is `{"name": ..., "parameters": ...}`, or `<|python_tag|>` before it.

https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/#json-based-tool-calling
"""

from penstock.text.parsing.json_calls import CallReader
from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.tool_format import Frame, ToolFormat, openai_id

PYTHON_TAG = "<|python_tag|>"


def _read(reader: Reader, said: Said) -> Reading[None]:
    """Calls stand at the start of the answer, behind one another, or behind the tag."""
    lead = yield from reader.skip_space()
    while True:
        if (yield from reader.skips(PYTHON_TAG)):
            lead += PYTHON_TAG + (yield from reader.skip_space())
        if (yield from CallReader(reader, said, is_bare=True).read()):
            lead = yield from reader.skip_space()
            if (yield from reader.skips(";")):
                lead += ";" + (yield from reader.skip_space())
            continue
        lead += reader.recorded()
        if said.ends_with_call and lead.strip() in ("", ";") and not (yield from reader.peek()):
            return
        said.content(lead)
        tag, space = yield from reader.until((PYTHON_TAG,), said.content)
        if not tag:
            said.end(space)
            return
        lead = space + tag + (yield from reader.skip_space())


LLAMA3_JSON = ToolFormat(
    name="llama3_json",
    read=_read,
    tags=(PYTHON_TAG,),
    is_taught_by=lambda source: '"parameters": ' in source,
    new_id=openai_id,
    trigger='{"name": "',
    frame=lambda name, source: Frame(f'{{"name": "{name}", "parameters": ', "}"),
)
