"""What an answer must look like, in the fields of OpenAI's API and of vLLM."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar, StructuralTags

Schema = dict[str, Any]


class TextFormat(msgspec.Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """Any text."""


class JsonObjectFormat(msgspec.Struct, frozen=True, tag="json_object", forbid_unknown_fields=True):
    """Any JSON object; with `value`, as huggingface_hub's client sends it, one of that schema."""

    value: Schema | None = None


class JsonFormat(msgspec.Struct, frozen=True, tag="json", forbid_unknown_fields=True):
    """JSON that validates against a schema, as TGI takes it."""

    value: Schema


class RegexFormat(msgspec.Struct, frozen=True, tag="regex", forbid_unknown_fields=True):
    """Text that a regular expression matches as a whole, as TGI takes it."""

    value: str


class NamedSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON schema as OpenAI wraps it. Without one, any JSON object will do."""

    name: str = ""
    description: str | None = None
    schema: Schema | None = None
    strict: Annotated[
        bool | None, Meta(description="Changes nothing: schemas are always enforced.")
    ] = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True):
    """JSON that validates against a schema."""

    json_schema: NamedSchema


class StructuralTagFormat(
    StructuralTags, frozen=True, kw_only=True, tag="structural_tag", forbid_unknown_fields=True
):
    """Free text with pieces that follow a schema, as vLLM takes it; see `StructuralTags`."""


ResponseFormat = (
    TextFormat
    | JsonObjectFormat
    | JsonSchemaFormat
    | StructuralTagFormat
    | JsonFormat
    | RegexFormat
)


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vLLM's field: exactly one of the first six."""

    json: Schema | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: StructuralTags | str | None = None
    whitespace_pattern: Annotated[
        str | None, Meta(description="A regex of the whitespace that JSON may have.")
    ] = None
    disable_any_whitespace: Annotated[
        bool, Meta(description="Only JSON without whitespace between its tokens.")
    ] = False


class StructuredFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that say what the answer must look like; at most one of them may be given."""

    response_format: Annotated[
        ResponseFormat | None, Meta(description="What the answer must look like.")
    ] = None
    structured_outputs: Annotated[
        StructuredOutputs | None, Meta(description="The same, as vLLM takes it.")
    ] = None
    guided_json: Annotated[
        Schema | str | None, Meta(description="JSON that validates against this schema.")
    ] = None
    guided_regex: Annotated[
        str | None, Meta(description="Text that this regular expression matches as a whole.")
    ] = None
    guided_choice: Annotated[list[str] | None, Meta(description="One of these texts.")] = None
    guided_grammar: Annotated[
        str | None, Meta(description="Text that follows this grammar, in Lark or GBNF.")
    ] = None


def grammar_of(fields: StructuredFields, native: Grammar | None) -> Grammar | None:
    """The one grammar that the fields ask for. `native` is what our own field `grammar` holds.

    Raises `InvalidRequest` if several are given, or one of them is contradictory.
    """
    asked = {
        "grammar": native,
        "response_format": _of_format(fields.response_format),
        "structured_outputs": _of_structured(fields.structured_outputs),
        "guided_json": _made(Grammar.json_schema, fields.guided_json),
        "guided_regex": _made(Grammar.regex, fields.guided_regex),
        "guided_choice": _made(Grammar.choice, fields.guided_choice),
        "guided_grammar": _made(Grammar.lark, fields.guided_grammar),
    }
    given = {name: grammar for name, grammar in asked.items() if grammar is not None}
    if len(given) > 1:
        first, second = list(given)[:2]
        raise InvalidRequest(
            f"{first} and {second} both say what the answer must look like.",
            param=second,
            remedy="Give one of them.",
        )
    return next(
        (msgspec.structs.replace(grammar, param=name) for name, grammar in given.items()), None
    )


def _of_format(asked: ResponseFormat | None) -> Grammar | None:
    match asked:
        case None | TextFormat():
            return None
        case JsonObjectFormat(value=schema):
            return _made(Grammar.json_schema, schema) or Grammar.json_object()
        case JsonFormat(value=schema):
            return Grammar.json_schema(schema)
        case RegexFormat(value=pattern):
            return Grammar.regex(pattern)
        case JsonSchemaFormat(json_schema=named):
            return _made(Grammar.json_schema, named.schema) or Grammar.json_object()
        case StructuralTagFormat():
            return Grammar.structural_tag(
                msgspec.convert(msgspec.structs.asdict(asked), StructuralTags)
            )


def _of_structured(asked: StructuredOutputs | None) -> Grammar | None:
    if asked is None:
        return None
    whitespace = _whitespace(asked)
    kinds = [
        _made(Grammar.json_schema, _with(whitespace, asked.json)),
        _made(Grammar.json_schema, _with(whitespace, {"type": "object"}))
        if asked.json_object
        else None,
        _made(Grammar.regex, asked.regex),
        _made(Grammar.choice, asked.choice),
        _made(Grammar.lark, asked.grammar),
        _made(Grammar.structural_tag, asked.structural_tag),
    ]
    given = [grammar for grammar in kinds if grammar is not None]
    if len(given) != 1:
        raise InvalidRequest(
            f"structured_outputs must hold one of json, json_object, regex, choice, grammar and "
            f"structural_tag; it holds {len(given)}.",
            param="structured_outputs",
        )
    if whitespace and given[0].kind != "json_schema":
        raise InvalidRequest(
            "structured_outputs: whitespace can be restricted for JSON only.",
            param="structured_outputs",
        )
    return given[0]


def _whitespace(asked: StructuredOutputs) -> Schema:
    """What llguidance is told in a schema."""
    if asked.disable_any_whitespace:
        return {"whitespace_flexible": False, "whitespace_pattern": None}
    pattern = asked.whitespace_pattern
    return {} if pattern is None else {"whitespace_pattern": pattern}


def _with(whitespace: Schema, schema: Schema | str | None) -> Schema | str | None:
    if not whitespace or schema is None:
        return schema
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema, type=Schema)
        except msgspec.DecodeError as error:
            raise InvalidRequest(
                f"structured_outputs: {error}", param="structured_outputs"
            ) from None
    return {"x-guidance": whitespace, **schema}


def _made(kind: Callable[[Any], Grammar], value: object) -> Grammar | None:
    return None if value is None else kind(value)
