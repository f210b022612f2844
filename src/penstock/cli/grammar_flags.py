"""Flags for the kinds of grammars: what is long is read from a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar


class GrammarFlag(NamedTuple):
    """A flag of one kind of grammar, and what makes a grammar of its value."""

    name: str
    type: Any
    default: Any
    help: str
    parse: Callable[[Any], Grammar | None]


def _from_text(make: Callable[..., Grammar], flag: str) -> Callable[[Any], Grammar | None]:
    return lambda given: make(given, param=flag) if given else None


def _from_file(make: Callable[..., Grammar], flag: str) -> Callable[[Any], Grammar | None]:
    def read(path: str | None) -> Grammar | None:
        if path is None:
            return None
        try:
            return make(Path(path).read_text(encoding="utf-8"), param=flag)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{flag}: {path} cannot be read: {error}", param=flag) from None

    return read


GRAMMAR_FLAGS = (
    GrammarFlag(
        "json_schema",
        str | None,
        None,
        "Only JSON that validates against the JSON schema in this file.",
        _from_file(Grammar.json_schema, "--json-schema"),
    ),
    GrammarFlag(
        "json_object",
        bool | None,
        None,
        "Only a JSON object.",
        lambda given: Grammar.json_object(param="--json-object") if given else None,
    ),
    GrammarFlag(
        "regex",
        str | None,
        None,
        "Only text that this regular expression matches as a whole.",
        _from_text(Grammar.regex, "--regex"),
    ),
    GrammarFlag(
        "choice",
        list[str] | None,
        None,
        "Only one of these texts. May be repeated.",
        _from_text(Grammar.choice, "--choice"),
    ),
    GrammarFlag(
        "lark",
        str | None,
        None,
        "Only text that follows the grammar in this file, in Lark or GBNF.",
        _from_file(Grammar.lark, "--lark"),
    ),
    GrammarFlag(
        "structural_tag",
        str | None,
        None,
        "Free text with the tags that this JSON file describes.",
        _from_file(Grammar.structural_tag, "--structural-tag"),
    ),
)
"""One way each to give the sampling option `grammar`."""
