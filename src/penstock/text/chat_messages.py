"""Conversations as clients write them, made into what chat templates read."""

import json
from collections.abc import Callable
from typing import Any

from penstock.text.growth import check_len
from penstock.vocabulary.errors import InvalidRequest

Message = dict[str, Any]

_TEXT_FIELDS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts that are text, and the fields that hold it. The second and the third are
those of /v1/responses, which agents send everywhere.
"""


class Arguments(dict[str, Any]):
    """The arguments of a tool call in a conversation.

    OpenAI's API has them as JSON text. Most templates want the object, to write it down in their
    own way; some put it behind a text as it is. So this is the object, and can be added to a text.
    """

    def __init__(self, values: dict[str, Any], written: str | None = None) -> None:
        super().__init__(values)
        self._written = written

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False) if self._written is None else self._written

    def __radd__(self, text: str) -> str:
        check_len(len(text) + len(str(self)))
        return text + str(self)

    def __add__(self, text: str) -> str:
        check_len(len(text) + len(str(self)))
        return str(self) + text

    def mapped(self, change: Callable[[Any], Any]) -> "Arguments":
        """The same with a change made to its values and its text."""
        return Arguments(change(dict(self)), change(self._written))


def for_template(messages: list[Message], *, knows_developer: bool = False) -> list[Message]:
    """The same conversation as templates know it.

    Content in parts becomes one text, a line per part, and null an empty one where nothing is
    called; an empty list of tool calls is left out; the arguments of past calls become objects; a
    developer is called system, unless the template knows the former.
    """
    readable = [_readable(message) for message in messages]
    for message in readable:
        if message.get("role") == "developer" and not knows_developer:
            message["role"] = "system"
    return readable


def _readable(message: Message) -> Message:
    changed = dict(message)
    if "content" in message:
        changed["content"] = _as_text(message["content"])
    if message.get("tool_calls"):
        changed["tool_calls"] = [_with_arguments(call) for call in message["tool_calls"]]
        return changed
    changed.pop("tool_calls", None)  # many templates ask only whether there is a list
    if changed.get("content") is None:
        changed["content"] = ""  # else they would write "None", or fail
    return changed


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": _arguments(function["arguments"])}}


def _arguments(given: Any) -> Any:
    """Malformed arguments are what a model has really said, so they stay as they are."""
    if isinstance(given, dict):
        return Arguments(given)
    if not isinstance(given, str | None):
        return given
    try:
        values = json.loads(given or "{}")
    except (ValueError, RecursionError):
        return given
    return Arguments(values, given or "{}") if isinstance(values, dict) else given


def _as_text(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("A message's content must be text or parts.", param="messages")
    return "\n".join(map(_text_of_part, content))


def _text_of_part(part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(kind, str):
        raise InvalidRequest("A content part must be an object with a type.", param="messages")
    field = _TEXT_FIELDS.get(kind)
    if field is None:
        raise InvalidRequest(
            f"Content parts of type {kind} are not supported.",
            param="messages",
            remedy="Send text parts only.",
        )
    text = part.get(field)
    if not isinstance(text, str):
        raise InvalidRequest(f"A {kind} part must have a {field}.", param="messages")
    return text
