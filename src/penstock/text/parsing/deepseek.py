"""DeepSeek V3, R1 and V3.1: calls between tags of their own, the arguments bare or in a code block.

https://huggingface.co/deepseek-ai/DeepSeek-V3-0324 and DeepSeek-V3.1, their chat templates
"""

import re

from penstock.text.parsing.json_calls import read_value
from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.tool_format import Frame, ToolFormat, openai_id

CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"

_BLANKS = re.compile(r"[ \t]+")
_LINE = re.compile(r"[^\n]+")


def _read(reader: Reader, said: Said) -> Reading[None]:
    while True:
        tag, space = yield from reader.until((CALLS_BEGIN,), said.content)
        if not tag:
            said.end(space)
            return
        lead = space + tag
        while True:
            lead += yield from reader.skip_space()
            if (yield from reader.skips(CALLS_END)):
                if lead.strip():  # nothing was called
                    said.content(lead + CALLS_END)
                break
            if not (yield from _read_call(reader, said)):
                lead += reader.recorded()
                if lead.strip() or not said.ends_with_call:
                    said.content(lead)
                break
            lead = ""


def _read_call(reader: Reader, said: Said) -> Reading[bool]:
    """One call; False if there is none, and then what was read is recorded.

    V3.1 writes `name<sep>{...}`; V3 and R1 `function<sep>name`, a new line, and a JSON code block.
    """
    reader.record()
    if not (yield from reader.skips(CALL_BEGIN)):
        return False
    before: list[str] = []
    tag, _ = yield from reader.until((SEPARATOR, CALL_END), before.append)
    if tag != SEPARATOR:
        return False
    name = "".join(before).strip()
    yield from reader.whole_run(_BLANKS)
    if (yield from reader.peek()) != "{":
        name = (yield from reader.whole_run(_LINE)).strip()
        yield from reader.skip_space()
        yield from reader.skips("```json")
        yield from reader.skip_space()
    if not name or (yield from reader.peek()) != "{":
        return False
    reader.recorded()
    said.call(name)
    yield from read_value(reader, said.arguments, stop=CALL_END)
    yield from reader.skip_space()
    yield from reader.skips("```")
    yield from reader.skip_space()
    yield from reader.skips(CALL_END)
    return True


def _frame(name: str, template_source: str) -> Frame:
    end = CALL_END + CALLS_END
    if "```json" in template_source:
        begin = f"{CALLS_BEGIN}{CALL_BEGIN}function{SEPARATOR}{name}\n```json\n"
        return Frame(begin, "\n```" + end)
    return Frame(f"{CALLS_BEGIN}{CALL_BEGIN}{name}{SEPARATOR}", end)


DEEPSEEK = ToolFormat(
    name="deepseek",
    read=_read,
    tags=(CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR),
    is_taught_by=lambda source: CALLS_BEGIN in source,
    new_id=openai_id,
    trigger=CALLS_BEGIN,
    frame=_frame,
)
