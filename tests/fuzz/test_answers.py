"""Any text of a model, in any pieces, in every format: the same thoughts, calls and content."""

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.text.parsing.choice import REASONING_FORMATS, TOOL_FORMATS
from tests.fuzz.inputs import AWKWARD, BRIEFLY, cut, texts_of
from tests.text.parsing.parsed import NAMES, parsed
from tests.text.parsing.test_any_text import fragments


@st.composite
def answers(draw):
    """(tool format or None, reasoning format or None, prompt, text, its pieces)."""
    tools = draw(st.none() | st.sampled_from(TOOL_FORMATS))
    reasoning = draw(st.none() | st.sampled_from(REASONING_FORMATS))
    made_of = [*AWKWARD, *NAMES]
    for format in (tools, reasoning):
        made_of += format.tags if format else ()
    if tools:
        made_of += fragments(tools)
    prompt = draw(st.sampled_from(["", reasoning.open])) if reasoning else ""
    return tools, reasoning, prompt, *draw(cut(texts_of(made_of, max_size=30)))


@BRIEFLY
@given(answers(), st.none() | st.integers(0, 2))
def test_pieces_say_what_the_whole_says_and_nothing_is_lost_or_invented(answer, max_calls):
    tools, reasoning, prompt, text, pieces = answer
    options = {"prompt": prompt, "max_calls": max_calls}
    whole = parsed(text, tools, reasoning, **options)
    assert parsed(pieces, tools, reasoning, **options) == whole
    assert parsed(list(text), tools, reasoning, **options) == whole
    assert max_calls is None or len(whole.calls) <= max_calls
    assert is_within(whole.reasoning + whole.content, text)
    if reasoning is None and not whole.calls and max_calls is None:
        assert whole.content == text
    for name, arguments in whole.calls:
        assert name
        if tools is not None and tools.name == "pythonic":
            assert isinstance(json.loads(arguments), dict)


def is_within(part: str, text: str) -> bool:
    """Whether `part` is `text` with some of it taken out."""
    rest = iter(text)
    return all(character in rest for character in part)
