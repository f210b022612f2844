"""Whatever a model writes, and however it is cut: the same result, nothing lost, in linear time."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.text.parsing.choice import REASONING_FORMATS, TOOL_FORMATS
from penstock.text.parsing.deepseek import DEEPSEEK
from penstock.text.parsing.hermes import HERMES
from penstock.text.parsing.llama3_json import LLAMA3_JSON
from penstock.text.parsing.mistral import MISTRAL
from penstock.text.parsing.pythonic import PYTHONIC
from penstock.text.parsing.reader import Reader
from penstock.text.parsing.reasoning import THINK
from tests.text.parsing.parsed import NAMES, Parsed, parsed

EVERY = pytest.mark.parametrize("format", TOOL_FORMATS, ids=lambda format: format.name)
JSON_WORDS = [
    '{"name": "',
    '"name"',
    '"arguments": ',
    "arguments",
    '"parameters": ',
    "null",
    "true",
]
PUNCTUATION = [*'{}[]()<>"\\,:;=|_ \n', "'", "{}", '""', "\\u12", "\\ud800", "```json\n", "```"]
WORDS = [*NAMES, "unknown", "a", "1", "-1.5e3", "日", "😀", "function", "True", "[f(", "a=", "'''"]


def fragments(format):
    """What texts in this format, and almost in this format, are made of."""
    tags = list(format.tags) + [f"{tag}\n" for tag in format.tags]
    halves = [tag[:cut] for tag in format.tags for cut in (1, len(tag) // 2, -1)]
    calls = ['{"name": "f", "arguments": {"a": 1}}', '{"name": "g", "parameters": {}}', "[f(a=1)]"]
    return [*tags, *halves, *calls, *JSON_WORDS, *PUNCTUATION, *WORDS, "<think>", "</think>"]


@st.composite
def cut_texts(draw, format):
    """(a text, its pieces)."""
    text = "".join(draw(st.lists(st.sampled_from(fragments(format)), max_size=24)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    places = [0, *cuts, len(text)]
    return text, [text[begin:end] for begin, end in pairwise(places)]


@EVERY
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_how_a_text_is_cut_changes_nothing(format, data):
    text, pieces = data.draw(cut_texts(format))
    whole = parsed(text, format)
    assert parsed(pieces, format) == whole
    assert parsed(list(text), format) == whole
    with_thoughts = parsed(text, format, THINK, prompt="<think>")
    assert parsed(pieces, format, THINK, prompt="<think>") == with_thoughts


@EVERY
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_no_call_is_content_in_its_order(format, data):
    """Content is the text with calls, and spaces beside them, taken out."""
    text, _ = data.draw(cut_texts(format))
    result = parsed(text, format)
    if not result.calls:
        assert result.content == text
    rest = iter(text)
    assert all(char in rest for char in result.content)
    for name, arguments in result.calls:
        assert name and (format is not PYTHONIC or json.loads(arguments) is not None)


@pytest.mark.parametrize("format", REASONING_FORMATS, ids=lambda format: format.name)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_of_thoughts_and_answer_only_one_of_each_tag_and_space_are_left_out(format, data):
    words = st.sampled_from([format.open, format.close, format.open[:3], "a", " ", "\n"])
    text = "".join(data.draw(st.lists(words, max_size=10)))
    for prompt in ("", format.open):
        result = parsed(text, reasoning=format, prompt=prompt)
        assert parsed(list(text), reasoning=format, prompt=prompt) == result
        num_left_out = len(squeezed(text)) - len(squeezed(result.reasoning + result.content))
        tags = len(format.open), len(format.close)
        assert num_left_out in (0, *tags, sum(tags))


def squeezed(text):
    return re.sub(r"\s", "", text)


atoms = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
atoms |= st.floats(allow_nan=False, allow_infinity=False)
keys = st.text(max_size=5)
json_values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
arguments = st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), json_values, max_size=4)
WRITTEN = {
    "hermes": (HERMES, lambda call: f"<tool_call>\n{call}\n</tool_call>"),
    "llama 3": (LLAMA3_JSON, lambda call: call),
    "mistral": (MISTRAL, lambda call: f"[TOOL_CALLS][{call}]"),
    "mistral, newer": (MISTRAL, lambda call: f"[TOOL_CALLS]f[ARGS]{json.dumps(unpacked(call))}"),
    "deepseek": (
        DEEPSEEK,
        lambda call: (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
            + json.dumps(unpacked(call))
            + "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    "pythonic": (
        PYTHONIC,
        lambda call: (
            f"[f({', '.join(f'{name}={value!r}' for name, value in unpacked(call).items())})]"
        ),
    ),
}


def unpacked(call):
    return json.loads(call)["arguments"]


@pytest.mark.parametrize("format, write", WRITTEN.values(), ids=WRITTEN)
@given(values=arguments)
@settings(max_examples=60, deadline=None)
def test_any_arguments_arrive_as_they_were_meant(format, write, values):
    text = write(json.dumps({"name": "f", "arguments": values}))
    for cut in (text, list(text)):
        [(name, written)] = parsed(cut, format).calls
        assert (name, json.loads(written)) == ("f", values)


# Megabytes. What is read is gone, so the work is linear if little is ever left unread.

HOSTILE = {
    "open tags": "<tool_call>",
    "half tags": "<tool_cal",
    "half tags of others": "<｜tool▁calls▁begin",
    "brackets": "[",
    "braces": "{",
    "space": " \n",
    "quotes": '"',
    "backslashes": "\\",
    "mistral": "[TOOL_CALLS]",
    "python tags": "<|python_tag|>{",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "thoughts": "<think></think>",
    "digits": "9",
}
HEADS = {
    HERMES: '<tool_call>{"name": "f", "arguments": ',
    LLAMA3_JSON: '{"name": "f", "parameters": ',
    MISTRAL: "[TOOL_CALLS]f[ARGS]",
    PYTHONIC: "[f(a=",
    DEEPSEEK: "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>",
}
LONGEST_TAG = 32


@pytest.fixture
def unread(monkeypatch):
    """How much was left unread whenever more came."""
    found = []
    add = Reader.add

    def noting_add(self, text):
        found.append(len(self._text) - self._place)
        add(self, text)

    monkeypatch.setattr(Reader, "add", noting_add)
    return found


@EVERY
@pytest.mark.parametrize("name", HOSTILE)
def test_never_is_more_than_a_part_of_a_tag_left_unread(format, name, unread):
    text = HOSTILE[name] * (5_000 // len(HOSTILE[name]))
    for head in ("", HEADS[format], HEADS[format] + '{"a": "', HEADS[format] + "{"):
        pieces = [text[place : place + 7] for place in range(0, len(text), 7)]
        assert parsed([head, *pieces], format, THINK) == parsed(head + text, format, THINK)
    assert max(unread) < LONGEST_TAG


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_anything_is_read(name):
    text = HOSTILE[name] * (1_000_000 // len(HOSTILE[name]))
    for format in (HERMES, DEEPSEEK) if "tags" in name else (PYTHONIC,):
        result = parsed(text, format, THINK)
        assert len(result.content + result.reasoning) > 500_000


def test_arguments_may_nest_without_end():
    text = HEADS[HERMES] + "{" * 1_000_000
    assert parsed(text, HERMES) == Parsed(calls=[("f", "{" * 1_000_000)])


def test_arguments_before_the_name_are_held_and_then_said_at_once():
    text = '<tool_call>{"arguments": {"a": "' + "x" * 1_000_000 + '"}, "name": "f"}</tool_call>'
    assert parsed(text, HERMES) == Parsed(calls=[("f", '{"a": "' + "x" * 1_000_000 + '"}')])


def test_a_thousand_calls_are_a_thousand_calls():
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n' * 1000
    assert len(parsed(text, HERMES).calls) == 1000
