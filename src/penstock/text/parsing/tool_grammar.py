"""What a model may write where its tool calls have to be valid."""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from penstock.text.parsing.tool_format import ToolFormat
from penstock.vocabulary.errors import InvalidRequest

_KEYWORD = re.compile(r"\w+")
_MOST_CHARS = 500_000
"""Of one call in Lark, where a schema stands many times; by default engines refuse far less."""


class CallableTool(NamedTuple):
    """A function, the JSON schema of its arguments, and whether they must follow it regardless."""

    name: str
    parameters: dict[str, Any] | None
    is_strict: bool


class ToolGrammar(NamedTuple):
    """A grammar in one of two notations for llguidance.

    A structural tag is free text with framed pieces of JSON in it: an object with `triggers`,
    `structures`, `at_least_one` and `stop_after_first`. Lark is a grammar for the whole text. The
    grammar holds behind the first `after`, or from the start if that is empty.
    """

    kind: Literal["structural_tag", "lark"]
    text: str
    after: str


def tool_grammar(
    tools: Sequence[CallableTool],
    format: ToolFormat,
    *,
    must_call: bool,
    max_calls: int | None,
    template_source: str,
    after: str = "",
) -> ToolGrammar | None:
    """Calls of `tools` as the model writes them: at least one if it `must_call`, and `max_calls`
    being 1, at most one. Then every call is valid; otherwise those of strict tools are. None if
    nothing needs to be held to.

    `template_source` decides between the versions of a format. Raises `InvalidRequest` for a
    schema that the format cannot express.
    """
    if not must_call and not any(tool.is_strict for tool in tools):
        return None
    schemas = {tool.name: _schema(tool, must_call) for tool in tools}
    if format.frame is None:
        text = _python_calls(schemas, must_call=must_call, max_calls=max_calls)
        return ToolGrammar("lark", text, after)
    frames = {name: format.frame(name, template_source) for name in schemas}
    tags = {
        "triggers": [format.trigger],
        "structures": [
            {"begin": frames[name].begin, "schema": schema, "end": frames[name].end}
            for name, schema in schemas.items()
        ],
        "at_least_one": must_call,
        "stop_after_first": max_calls == 1,
    }
    return ToolGrammar("structural_tag", json.dumps(tags, ensure_ascii=False), after)


def _schema(tool: CallableTool, must_call: bool) -> dict[str, Any]:
    """Of tools that are not strict, arguments are only held to be an object.

    OpenAI's API says that a function without parameters takes none.
    """
    if tool.parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return tool.parameters if must_call or tool.is_strict else {"type": "object"}


def _python_calls(
    schemas: dict[str, dict[str, Any]], *, must_call: bool, max_calls: int | None
) -> str:
    """A list of Python calls with keyword arguments, whose values are JSON, as Lark.

    JSON's true, false and null stand for Python's: `python_literals` reads both.
    """
    rules = [
        f"call_{number}: {_python_call(name, schema)}"
        for number, (name, schema) in enumerate(schemas.items())
    ]
    call = " | ".join(f"call_{number}" for number in range(len(schemas)))
    more = "" if max_calls == 1 else ' (", " call)*'
    start = "calls" if must_call else "calls | TEXT?"
    return "\n".join(
        [f"start: {start}", f'calls: "[" call{more} "]"', f"call: {call}", *rules]
        + ([] if must_call else [r"TEXT: /[^\[](.|\n)*/"])
    )


def _python_call(name: str, schema: dict[str, Any]) -> str:
    properties, required = schema.get("properties", {}), schema.get("required") or []
    are_objects = isinstance(properties, dict) and isinstance(required, list)
    if not are_objects or not all(map(_KEYWORD.fullmatch, properties)):
        raise InvalidRequest(
            f"The parameters of {name} cannot be written as keyword arguments.", param="tools"
        )
    names = {each for each in required if isinstance(each, str)}
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    num_chars = len(json.dumps(properties)) + len(properties) * len(json.dumps(shared))
    if num_chars * (1 if names & properties.keys() else len(properties)) > _MOST_CHARS:
        raise InvalidRequest(f"{name} has too many or too large parameters.", param="tools")
    values = {
        key: f"{_quoted(key + '=')} %json {json.dumps({**shared, **_object(value)})}"
        for key, value in properties.items()
    }
    needed = [values[key] for key in properties if key in names]
    optional = [values[key] for key in properties if key not in names]
    return f'{_quoted(name + "(")} {_joined(needed, optional)} ")"'


def _object(schema: Any) -> dict[str, Any]:
    """A schema may be just true, for anything."""
    return schema if isinstance(schema, dict) else {}


def _joined(needed: list[str], optional: list[str]) -> str:
    """All that is needed, then in their order any that are not, with commas between them."""
    rest = [f'(", " {value})?' for value in optional]
    if needed:
        return ' ", " '.join(needed) + " " + " ".join(rest)
    starts = [" ".join([value, *rest[place + 1 :]]) for place, value in enumerate(optional)]
    return f"({' | '.join(starts)})?" if starts else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
