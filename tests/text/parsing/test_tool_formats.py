"""Tool calls in the formats that models write, read while they arrive."""

import json

import pytest

from penstock.text.parsing.choice import TOOL_FORMATS
from penstock.text.parsing.deepseek import DEEPSEEK
from penstock.text.parsing.hermes import HERMES
from penstock.text.parsing.llama3_json import LLAMA3_JSON
from penstock.text.parsing.mistral import MISTRAL
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content
from penstock.text.parsing.pythonic import PYTHONIC
from tests.text.parsing.parsed import Parsed, parsed, pieces_of

F1 = ("f", '{"a": 1}')
G0 = ("g", "{}")
V3 = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
V31 = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"

ONE_CALL = {
    "hermes": (HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
    "llama 3": (LLAMA3_JSON, '{"name": "f", "parameters": {"a": 1}}'),
    "llama 3, behind its tag": (
        LLAMA3_JSON,
        '<|python_tag|>{"name": "f", "parameters": {"a": 1}}',
    ),
    "mistral": (MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]'),
    "mistral, newer": (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": 1}'),
    "mistral, in between": (MISTRAL, '[TOOL_CALLS]f{"a": 1}'),
    "pythonic": (PYTHONIC, "[f(a=1)]"),
    "pythonic, between tags": (PYTHONIC, "<|python_start|>[f(a=1)]<|python_end|>"),
    "deepseek v3": (DEEPSEEK, CALLS + V3.format("f", '{"a": 1}') + CALLS_END),
    "deepseek v3.1": (DEEPSEEK, CALLS + V31.format("f", '{"a": 1}') + CALLS_END),
}
TWO_CALLS = {
    "hermes": (
        HERMES,
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>\n',
    ),
    "llama 3": (
        LLAMA3_JSON,
        '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
    ),
    "llama 3, behind its tag": (
        LLAMA3_JSON,
        '<|python_tag|>{"name": "f", "parameters": {"a": 1}}'
        '<|python_tag|>{"name": "g", "parameters": {}}\n',
    ),
    "mistral": (
        MISTRAL,
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
    ),
    "mistral, newer": (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}'),
    "pythonic": (PYTHONIC, "[f(a=1), g()]\n"),
    "deepseek v3": (
        DEEPSEEK,
        CALLS + V3.format("f", '{"a": 1}') + "\n" + V3.format("g", "{}") + CALLS_END,
    ),
    "deepseek v3.1": (
        DEEPSEEK,
        CALLS + V31.format("f", '{"a": 1}') + V31.format("g", "{}") + CALLS_END + "\n",
    ),
}


@pytest.mark.parametrize("format, text", ONE_CALL.values(), ids=ONE_CALL)
def test_a_call_has_a_name_and_arguments_and_is_no_content(format, text):
    assert parsed(text, format) == Parsed(calls=[F1])
    assert parsed(text, format) == parsed(list(text), format)


@pytest.mark.parametrize("format, text", TWO_CALLS.values(), ids=TWO_CALLS)
def test_several_calls_come_in_their_order(format, text):
    assert parsed(text, format) == Parsed(calls=[F1, G0])
    assert parsed(text, format) == parsed(list(text), format)


@pytest.mark.parametrize("format, text", ONE_CALL.values(), ids=ONE_CALL)
def test_spaces_and_lines_around_a_call_are_not_content(format, text):
    assert parsed(f" \n{text}\n\n", format) == Parsed(calls=[F1])


BEHIND_CONTENT = [name for name, (format, _) in ONE_CALL.items() if "pythonic" not in name]


@pytest.mark.parametrize("name", [name for name in BEHIND_CONTENT if name != "llama 3"])
def test_content_may_stand_before_a_call_that_has_a_tag(name):
    format, text = ONE_CALL[name]
    assert parsed(f"Let me see.\n\n{text}", format) == Parsed(content="Let me see.", calls=[F1])


@pytest.mark.parametrize("name", ["hermes", "mistral", "deepseek v3", "deepseek v3.1"])
def test_content_may_follow_a_call(name):
    format, text = ONE_CALL[name]
    assert parsed(f"{text}Done.\n", format) == Parsed(content="Done.\n", calls=[F1])


@pytest.mark.parametrize("format", TOOL_FORMATS, ids=lambda format: format.name)
@pytest.mark.parametrize(
    "text", ["", " ", "Hi!", " Hi!\n ", "2 < 3 [1] {x} \n\n<b>", "<｜", "[TOOL"]
)
def test_an_answer_without_calls_stays_as_it_is(format, text):
    assert parsed(text, format) == Parsed(content=text)
    assert parsed(list(text), format) == Parsed(content=text)


def test_arguments_are_passed_on_while_they_arrive():
    texts = ['<tool_call>{"name": "f", ', '"arguments": {"a": ', '"x', "y", '"}', "}</tool_call>"]
    begin, *rest = [piece for pieces in pieces_of(texts, HERMES) for piece in pieces]
    assert (type(begin), begin.name) == (CallBegin, "f")
    assert rest == [CallArguments(0, text) for text in ('{"a": ', '"x', "y", '"}')]


def test_content_is_passed_on_while_it_arrives_but_for_what_may_become_a_tag():
    pieces = pieces_of(["Hello ", "wor", "ld <tool", "s> ", "are ", "<tool_ca"], HERMES)
    assert [[piece.text for piece in arrived] for arrived in pieces] == [
        *(["Hello"], [" wor"], ["ld"], [" <tools>"], [" are"], []),
        [" <tool_ca"],
    ]


def test_ids_look_as_the_models_know_them():
    for name, (format, text) in ONE_CALL.items():
        [begin] = [p for pieces in pieces_of([text], format) for p in pieces if "id" in dir(p)]
        assert (
            begin.id.isalnum() and len(begin.id) == 9
            if "mistral" in name
            else begin.id[:5] == "call_"
        )
    [[begin, *_], _] = pieces_of(["[TOOL_CALLS]f[CALL_ID]abcDEF123[ARGS]{}"], MISTRAL)
    assert begin.id == "abcDEF123"


# JSON objects


@pytest.mark.parametrize(
    "written, arguments",
    [
        ('{"name": "f", "arguments": {"a": "}"}}', '{"a": "}"}'),
        ('{"name": "f", "arguments": {"a": "\\"}"}}', '{"a": "\\"}"}'),
        ('{"name": "f", "arguments": {"a": "\\\\"}}', '{"a": "\\\\"}'),
        ('{"name": "f", "arguments": {"a": "</tool_call>"}}', '{"a": "</tool_call>"}'),
        ('{"name": "f", "arguments": {"a": [{"b": []}, {}]}}', '{"a": [{"b": []}, {}]}'),
        ('{ "name" : "f" , "arguments" : { "a" : 1 } }', '{ "a" : 1 }'),
        ('{"arguments": {"a": 1}, "name": "f"}', '{"a": 1}'),
        ('{"id": 7, "type": {"x": [1, "}"]}, "name": "f", "arguments": {}}', "{}"),
        ('{"name": "f", "arguments": {}, "id": "x", "more": [1, 2]}', "{}"),
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f", "arguments": null}', "{}"),
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": {"a": 1}', '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": 1}}}', '{"a": 1}'),
        ('{"name": "f", "arguments": {"é": "日本"}}', '{"é": "日本"}'),
    ],
)
def test_a_call_s_object_may_have_its_keys_in_any_order_and_others_besides(written, arguments):
    text = f"<tool_call>{written}</tool_call>"
    assert parsed(text, HERMES) == Parsed(calls=[("f", arguments)])
    assert parsed(list(text), HERMES) == Parsed(calls=[("f", arguments)])


def test_a_name_may_have_escapes():
    text = '<tool_call>{"name": "\\u0066", "arguments": {}}</tool_call>'
    assert parsed(text, HERMES).calls == [("f", "{}")]


def test_several_objects_may_share_a_tag():
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n{"name": "g"}\n</tool_call>'
    assert parsed(text, HERMES) == Parsed(calls=[F1, G0])


# What is malformed


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>f(a=1)</tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": "f" "arguments": {}}</tool_call>',
        '<tool_call>{"name": f, "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\x", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "name": "g", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": 7}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "[1]"}</tool_call>',
        '<tool_call>{"arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"arguments": {}, "arguments": {}, "name": "f"}</tool_call>',
        "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>",
        '<tool_call>{"name": "f", "argum',
        '<tool_call>{"arguments": {"a": ',
        "Use <tool_call> and </tool_call>. \n",
        " <tool_call> \n{",
    ],
)
def test_a_malformed_call_is_content(text):
    assert parsed(text, HERMES) == Parsed(content=text)
    assert parsed(list(text), HERMES) == Parsed(content=text)


@pytest.mark.parametrize(
    "format, text",
    [
        (LLAMA3_JSON, '{"name": "f"}'),
        (LLAMA3_JSON, '{"name": "Ann", "parameters": {}}'),
        (LLAMA3_JSON, '{"colour": "red", "parameters": {}}'),
        (LLAMA3_JSON, '{"name": "f", "parameters": '),
        (LLAMA3_JSON, 'So: {"name": "f", "parameters": {}}'),
        (LLAMA3_JSON, "<|python_tag|>print(1)"),
        (LLAMA3_JSON, "<|python_tag|>"),
        (MISTRAL, "[TOOL_CALLS]"),
        (MISTRAL, "[TOOL_CALLS] []"),
        (MISTRAL, "[TOOL_CALLS] [f(1)]"),
        (MISTRAL, "[TOOL_CALLS]f"),
        (MISTRAL, "[TOOL_CALLS]f[ARGS]"),
        (MISTRAL, "[TOOL_CALLS]f[ARGS]7"),
        (MISTRAL, "[TOOL_CALLS][ARGS]{}"),
        (MISTRAL, "[TOOL_CALLS]f[CALL_ID][ARGS]x"),
        (PYTHONIC, "[f(a=1"),
        (PYTHONIC, "[f(a=)]"),
        (PYTHONIC, "[f(1)]"),
        (PYTHONIC, "[f(a=1, a=2)]"),
        (PYTHONIC, "[f(a=b)]"),
        (PYTHONIC, "[f(a=__import__('os').system('true'))]"),
        (PYTHONIC, "[unknown(a=1)]"),
        (PYTHONIC, "[f]"),
        (PYTHONIC, "[]"),
        (PYTHONIC, "[1, 2]"),
        (PYTHONIC, "f(a=1)"),
        (PYTHONIC, "Yes: [f(a=1)]"),
        (PYTHONIC, "<|python_start|>1 + 1<|python_end|>"),
        (DEEPSEEK, CALLS),
        (DEEPSEEK, CALLS + "f(1)" + CALLS_END),
        (DEEPSEEK, CALLS + V3.format("f", "7") + CALLS_END),
        (DEEPSEEK, CALLS + V3.format("", "{}") + CALLS_END),
        (DEEPSEEK, CALLS + "<｜tool▁call▁begin｜>f<｜tool▁call▁end｜>" + CALLS_END),
        (DEEPSEEK, CALLS + "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"),
    ],
)
def test_so_it_is_in_the_other_formats(format, text):
    assert parsed(text, format) == Parsed(content=text)
    assert parsed(list(text), format) == Parsed(content=text)


@pytest.mark.parametrize(
    "format, text, rest",
    [
        (HERMES, '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call> <tool_call>', None),
        (MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {]', ", {]"),
        (PYTHONIC, "[f(a=1), g(b=)]", ", g(b=)]"),
        (PYTHONIC, "[f(a=1)] and more", " and more"),
        (LLAMA3_JSON, '{"name": "f", "parameters": {"a": 1}}; {"name"', '; {"name"'),
        (DEEPSEEK, CALLS + V31.format("f", '{"a": 1}') + "oops", "oops"),
    ],
)
def test_what_is_malformed_behind_a_call_is_content_and_the_call_stands(format, text, rest):
    expected = Parsed(content=" <tool_call>" if rest is None else rest, calls=[F1])
    assert parsed(text, format) == expected
    assert parsed(list(text), format) == expected


@pytest.mark.parametrize("format, text", ONE_CALL.values(), ids=ONE_CALL)
def test_a_call_that_is_cut_off_ends_where_the_answer_ends(format, text):
    """As in OpenAI's API, whose finish_reason then is length."""
    cut_off = text[: text.index("1")]
    if format is PYTHONIC:
        assert parsed(cut_off, format) == Parsed(content=cut_off)
    else:
        assert parsed(cut_off, format) == Parsed(calls=[("f", '{"a": ')])


def test_malformed_arguments_are_passed_on_as_the_model_wrote_them():
    """They have been streamed already when that shows. Clients have to check them anyway."""
    for arguments in ('{"a": }', "{'a': True}", '{"a": 1,}', "{a: 1]"):
        text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
        assert parsed(text, HERMES) == Parsed(calls=[("f", arguments)])


def test_broken_arguments_end_where_their_call_ends():
    text = '<tool_call>{"name": "f", "arguments": {"a": {</tool_call>Hm.'
    assert parsed(text, HERMES) == Parsed(content="Hm.", calls=[("f", '{"a": {')])


# Python literals


@pytest.mark.parametrize(
    "literal, value",
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1_000", 1000),
        ("True", True),
        ("false", False),
        ("None", None),
        ("null", None),
        ("'x'", "x"),
        ('"x"', "x"),
        ("''", ""),
        ("'''it's'''", "it's"),
        ('"""a\n"b" """', 'a\n"b" '),
        (r"'\n\t\\\'\"\x41\u00e9\U0001F600\d'", "\n\t\\'\"Aé😀\\d"),
        ("'a\\\nb'", "ab"),
        ("[]", []),
        ("[1, 'a', [2], ]", [1, "a", [2]]),
        ("()", []),
        ("(1, 2)", [1, 2]),
        ("(1,)", [1]),
        ("(1)", 1),
        ("{}", {}),
        ("{'a': {'b': (1, 2)}, \"c\": None,}", {"a": {"b": [1, 2]}, "c": None}),
        ("'日本'", "日本"),
    ],
)
def test_a_python_literal_is_read_without_evaluating_it(literal, value):
    text = f"[f(x={literal})]"
    for cut in (text, list(text)):
        [(_, arguments)] = parsed(cut, PYTHONIC).calls
        assert json.loads(arguments) == {"x": value}


@pytest.mark.parametrize(
    "expression",
    [
        *("x", "f()", "1 + 1", "1 2", "--1", "1e999", "0x", "1.2.3", "9" * 65, "inf", "nan"),
        *("'x", "'a\nb'", r"'\x4'", r"'\ud800'", r"'\U99999999'", "'a' 'b'", "b'x'", "f'{x}'"),
        *("[1", "[1 2]", "[,]", "(1 2)", "{1}", "{'a' 1}", "{'a'}", "{1: 2}", "{None: 1}", "..."),
        *("[x for x in y]", "{**x}", "lambda: 1", "[" * 66 + "]" * 66, ""),
    ],
)
def test_whatever_else_python_may_mean_is_content(expression):
    text = f"[f(x={expression})]"
    for cut in (text, list(text)):
        assert parsed(cut, PYTHONIC) == Parsed(content=text)


def test_a_content_is_never_two_pieces_where_it_could_be_one():
    [[piece], []] = pieces_of(["a < b < c \n d <tool_call> e"], HERMES)
    assert piece == Content("a < b < c \n d <tool_call> e")
