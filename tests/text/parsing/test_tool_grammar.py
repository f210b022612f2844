"""What a model may write where calls have to be valid: it is what the format's reader reads."""

import json

import llguidance
import pytest

from penstock.text.parsing.choice import TOOL_FORMATS
from penstock.text.parsing.hermes import HERMES
from penstock.text.parsing.pythonic import PYTHONIC
from penstock.text.parsing.tool_grammar import CallableTool, tool_grammar
from penstock.vocabulary.errors import InvalidRequest
from tests.text.parsing.parsed import Parsed, parsed

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANY = CallableTool("f", CITY, False)
STRICT = CallableTool("get_weather", CITY, True)
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def grammar(*tools, format=HERMES, source="", **options):
    options = {"must_call": True, "max_calls": None, **options}
    return tool_grammar(tools, format, template_source=source, **options)


def tags(*tools, **options):
    made = grammar(*tools, **options)
    assert made.kind == "structural_tag"
    return json.loads(made.text)


def test_a_grammar_frames_the_arguments_of_each_tool_as_the_model_would():
    assert tags(ANY, STRICT) == {
        "triggers": ["<tool_call>"],
        "structures": [
            {
                "begin": '<tool_call>\n{"name": "f", "arguments": ',
                "schema": CITY,
                "end": "}\n</tool_call>",
            },
            {
                "begin": '<tool_call>\n{"name": "get_weather", "arguments": ',
                "schema": CITY,
                "end": "}\n</tool_call>",
            },
        ],
        "at_least_one": True,
        "stop_after_first": False,
    }


def test_at_most_one_call_ends_the_answer():
    assert tags(ANY, max_calls=1)["stop_after_first"]


def test_where_nothing_has_to_be_called_only_strict_tools_are_held_to_their_schema():
    assert grammar(ANY, must_call=False) is None
    made = tags(ANY, STRICT, must_call=False)
    assert [structure["schema"] for structure in made["structures"]] == [{"type": "object"}, CITY]
    assert not made["at_least_one"]


def test_a_function_without_parameters_takes_none():
    [structure] = tags(CallableTool("f", None, False))["structures"]
    assert structure["schema"] == NO_ARGUMENTS


def test_thoughts_that_come_first_are_free():
    assert grammar(ANY).after == ""
    assert grammar(ANY, after="</think>").after == "</think>"


VERSIONS = [(format, "") for format in TOOL_FORMATS if format.frame is not None]
VERSIONS += [(format, "[ARGS] ```json") for format, _ in VERSIONS]


@pytest.mark.parametrize("format, source", VERSIONS, ids=lambda each: getattr(each, "name", each))
def test_what_a_grammar_allows_is_what_the_reader_understands(format, source):
    made = tags(ANY, STRICT, format=format, source=source)
    text = ""
    for structure, arguments in zip(made["structures"], ('{"city": "a"}', "{}"), strict=True):
        assert structure["begin"].startswith(made["triggers"][0])
        text += structure["begin"] + arguments + structure["end"]
    assert parsed(text, format) == Parsed(calls=[("f", '{"city": "a"}'), ("get_weather", "{}")])


# Python's way has no JSON to frame, so it has a grammar of its own.


def accepts(lark, text):
    """Whether llguidance lets a model that writes bytes write this, and stop."""

    class Bytes:
        tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")
        eos_token_id = 256
        bos_token_id = None
        special_token_ids = (256,)

        def __call__(self, text):
            return list(text.encode())

    trie = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    matcher = llguidance.LLMatcher(trie, llguidance.LLMatcher.grammar_from_lark(lark))
    assert not matcher.get_error(), matcher.get_error()
    return matcher.consume_tokens([*text.encode(), 256])


MIXED = CallableTool(
    "f",
    {
        "type": "object",
        "$defs": {"Day": {"enum": ["Mon", "Tue"]}},
        "properties": {
            "unit": {"type": "string"},
            "city": {"type": "string"},
            "day": {"$ref": "#/$defs/Day"},
            "any": True,
        },
        "required": ["city"],
    },
    False,
)
OPTIONAL = CallableTool(
    "g",
    {"type": "object", "properties": {name: {"type": "integer"} for name in "abc"}},
    False,
)


@pytest.mark.parametrize(
    "text",
    [
        '[f(city="Köln")]',
        '[f(city="Köln", unit="C")]',
        '[f(city="Köln", day="Tue")]',
        '[f(city="x", unit="C", day="Mon", any=[null, {"b": true}])]',
        '[f(city="x"), g()]',
        "[g()]",
        "[g(a=1)]",
        "[g(b=2, c=3)]",
        "[g(c=3)]",
        "[g(a=1, b=2, c=3)]",
    ],
)
def test_python_calls_that_the_grammar_allows_are_understood(text):
    made = grammar(MIXED, OPTIONAL, format=PYTHONIC)
    assert made.kind == "lark"
    assert accepts(made.text, text)
    result = parsed(text, PYTHONIC)
    assert result.calls and not result.content


@pytest.mark.parametrize(
    "text",
    [
        *("", "Hello", "[]", "[f()]", '[f(unit="C")]', '[f(day="Sun", city="x")]', "[g(d=1)]"),
        *('[f(city="x", day="Sun")]', '[f(city=1)]', "[g(c=1, a=2)]", "[g(a=1 b=2)]", "[h()]"),
    ],
)  # fmt: skip
def test_other_python_calls_are_not_allowed(text):
    assert not accepts(grammar(MIXED, OPTIONAL, format=PYTHONIC).text, text)


def test_at_most_one_python_call():
    made = grammar(OPTIONAL, format=PYTHONIC, max_calls=1)
    assert accepts(made.text, "[g()]")
    assert not accepts(made.text, "[g(), g()]")


def test_python_calls_need_not_be():
    made = grammar(OPTIONAL._replace(is_strict=True), format=PYTHONIC, must_call=False)
    for text in ("", "Hello [1]", "[g(a=1)]"):
        assert accepts(made.text, text)
    assert not accepts(made.text, "[g(a=x)]")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"not a keyword": {}}},
        {"properties": ["city"]},
        {"properties": {"city": {}}, "required": 5},
    ],
)
def test_parameters_that_are_no_keywords_are_refused(schema):
    tool = CallableTool("f", {"type": "object", **schema}, False)
    with pytest.raises(InvalidRequest, match="parameters of f cannot be written as keyword"):
        grammar(tool, format=PYTHONIC)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {f"p{number}": {} for number in range(2000)}, "required": ["other"]},
        {
            "properties": {f"p{number}": {} for number in range(500)},
            "required": ["p0"],
            "$defs": {"a": {"description": "x" * 10_000}},
        },
    ],
)
def test_a_grammar_that_would_be_far_longer_than_its_schema_is_refused(schema):
    with pytest.raises(InvalidRequest, match="f has too many or too large parameters"):
        grammar(CallableTool("f", schema, False), format=PYTHONIC)
