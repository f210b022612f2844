"""Which format a model speaks is taken from its chat template, unless somebody says it."""

import pytest

from penstock.text.parsing.choice import (
    REASONING_PARSERS,
    TOOL_PARSERS,
    check_parser_names,
    chosen_formats,
)
from penstock.vocabulary.errors import SettingsError
from tests.text.chat_models import CHATML, DEEPSEEK, GEMMA, LLAMA3, MISTRAL, QWEN3


def names(formats):
    return tuple(each and each.name for each in (formats.tools, formats.reasoning))


@pytest.mark.parametrize(
    "model, tools, reasoning",
    [
        (CHATML, "hermes", None),
        (QWEN3, "hermes", "think"),
        (LLAMA3, "llama3_json", None),
        (MISTRAL, "mistral", None),
        (GEMMA, None, None),
        (DEEPSEEK, "deepseek", "think"),
    ],
    ids=lambda each: getattr(each, "name", each),
)
def test_a_chat_template_teaches_its_formats(model, tools, reasoning):
    formats = chosen_formats("auto", "auto", model.source)
    assert names(formats) == (tools, reasoning)
    has_none = "the chat template has none that we know"
    assert formats.tools_reason == ("as the chat template has it" if tools else has_none)
    assert formats.reasoning_reason == ("as the chat template has it" if reasoning else has_none)


@pytest.mark.parametrize(
    "source, tools, reasoning",
    [
        ("... [func_name1(params_name1=params_value1...)] ...", "pythonic", None),
        ("<tool_call>\n<function=name>\n<parameter=key>", None, None),
        ("<tool_call>{name}<arg_key>", None, None),
        ("[THINK]...[/THINK] [TOOL_CALLS]", "mistral", "mistral"),
        ("", None, None),
    ],
)
def test_words_tell_formats_apart(source, tools, reasoning):
    assert names(chosen_formats("auto", "auto", source)) == (tools, reasoning)


def test_what_is_asked_for_wins():
    formats = chosen_formats("pythonic", "think", CHATML.source)
    assert names(formats) == ("pythonic", "think")
    assert (formats.tools_reason, formats.reasoning_reason) == ("as asked", "as asked")
    assert names(chosen_formats("none", "none", QWEN3.source)) == (None, None)


def test_without_a_chat_template_there_is_nothing_to_look_for():
    formats = chosen_formats("auto", "auto", None)
    assert names(formats) == (None, None)
    assert formats.tools_reason == "the model has no chat template"


def test_every_name_on_offer_is_one_that_can_be_chosen():
    for name in TOOL_PARSERS:
        check_parser_names(name, "auto")
        assert name in ("auto", "none") or names(chosen_formats(name, "none", None))[0] == name
    for name in REASONING_PARSERS:
        check_parser_names("auto", name)
        assert name in ("auto", "none") or names(chosen_formats("none", name, None))[1] == name


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(
        SettingsError, match=r"no tool_parser 'herms'.*auto, none, deepseek, hermes"
    ):
        check_parser_names("herms", "auto")
    with pytest.raises(SettingsError, match=r"no reasoning_parser 'deep'.*auto, none, mistral"):
        check_parser_names("auto", "deep")
