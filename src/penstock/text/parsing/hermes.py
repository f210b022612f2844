"""Hermes, Qwen and many others: `<tool_call>{"name": ..., "arguments": ...}</tool_call>`.

https://huggingface.co/NousResearch/Hermes-2-Pro-Llama-3-8B, section "Prompt Format for Function
Calling"; https://qwen.readthedocs.io/en/latest/framework/function_call.html
"""

from penstock.text.parsing.json_calls import CallReader
from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading
from penstock.text.parsing.tool_format import Frame, ToolFormat, openai_id

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def _read(reader: Reader, said: Said) -> Reading[None]:
    while True:
        tag, space = yield from reader.until((OPEN,), said.content)
        if not tag:
            said.end(space)
            return
        lead = space + tag + (yield from reader.skip_space())
        while (yield from CallReader(reader, said, stop=CLOSE).read()):
            lead = ""
            yield from reader.skip_space()
            while (yield from reader.skips("}")):  # small models write one too many
                yield from reader.skip_space()
        lead += reader.recorded()
        if lead or not (yield from reader.skips(CLOSE)):
            said.content(lead)


HERMES = ToolFormat(
    name="hermes",
    read=_read,
    tags=(OPEN, CLOSE),
    # other formats use the same tag around something else than JSON
    is_taught_by=lambda source: (
        OPEN in source and not any(other in source for other in ("<function=", "<arg_key>"))
    ),
    new_id=openai_id,
    trigger=OPEN,
    frame=lambda name, source: Frame(f'{OPEN}\n{{"name": "{name}", "arguments": ', f"}}\n{CLOSE}"),
)
