"""What a text must look like: a grammar, in one of the notations that clients use."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

GrammarKind = Literal["json_schema", "json_object", "regex", "choice", "lark", "structural_tag"]


class Grammar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grammar that the whole text of every completion follows.

        SamplingParams(grammar=Grammar.regex("[0-9]{4}-[0-9]{2}"))

    The constructors below write `text` as its kind wants it. Whether the grammar means anything is
    found out when it is compiled (`engine/grammar_compiler.py`). `param` is what the request called
    it, so that a refusal names what the client knows.
    """

    kind: Annotated[
        GrammarKind,
        Meta(description="What the text is written in; json_object needs none."),
    ]
    text: Annotated[
        str,
        Meta(description="A JSON schema, a regular expression, a JSON list of strings, or Lark."),
    ] = ""
    after: Annotated[
        str,
        Meta(description="The grammar holds only behind the first of this, such as </think>."),
    ] = ""
    param: Annotated[str, Meta(description="What an error calls this field.")] = "grammar"

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str, **options: str) -> "Grammar":
        """JSON that validates against a schema (draft 2020-12, as far as llguidance knows it)."""
        return cls(kind="json_schema", text=_json(schema), **options)

    @classmethod
    def json_object(cls, **options: str) -> "Grammar":
        """Any JSON object."""
        return cls(kind="json_object", **options)

    @classmethod
    def regex(cls, pattern: str, **options: str) -> "Grammar":
        """Text that a regular expression matches from beginning to end (Rust's regex syntax)."""
        return cls(kind="regex", text=pattern, **options)

    @classmethod
    def choice(cls, choices: Sequence[str], **options: str) -> "Grammar":
        """One of these texts."""
        return cls(kind="choice", text=_json(list(choices)), **options)

    @classmethod
    def lark(cls, text: str, **options: str) -> "Grammar":
        """A context-free grammar: llguidance's Lark, or GBNF with rules `name ::= ...`."""
        return cls(kind="lark", text=text, **options)

    @classmethod
    def structural_tag(cls, tags: "StructuralTags | str", **options: str) -> "Grammar":
        """Free text in which certain words begin a piece that follows a JSON schema."""
        return cls(kind="structural_tag", text=_json(tags), **options)


class StructuralTag(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One piece: `begin`, JSON that validates against `schema`, and `end`.

    Begin and end may contain special tokens, written as the tokenizer writes them.
    """

    begin: Annotated[str, Meta(min_length=1)]
    schema: dict[str, Any]
    end: str = ""


class StructuralTags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Free text with tags in it, for calling tools.

    Once one of the `triggers` appears, the text goes on with the tag, or one of the tags, that
    begins with it; each tag begins with exactly one of them. With `at_least_one` the text begins
    with a tag, and with `stop_after_first` it ends behind the first one.
    """

    triggers: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1)]
    structures: Annotated[list[StructuralTag], Meta(min_length=1)]
    at_least_one: bool = False
    stop_after_first: bool = False


def _json(value: Any) -> str:
    """JSON with the order of keys as given, since properties are generated in that order."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
