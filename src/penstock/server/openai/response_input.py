"""The items of /v1/responses as the chat pipeline knows conversations."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from penstock.server.errors import HttpError
from penstock.server.openai.bodies import ChatBody, ChatMessage
from penstock.server.openai.response_body import ResponsesBody, ResponseTool, ResponseToolName
from penstock.server.openai.tools import (
    CalledFunction,
    FunctionDefinition,
    FunctionName,
    NamedTool,
    PastCall,
    Tool,
)
from penstock.vocabulary.errors import InvalidRequest


class TextPart(msgspec.Struct, frozen=True):
    """Text in a message, or in what a function returned."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class InputMessage(msgspec.Struct, frozen=True):
    """What somebody says. Items may carry more, such as ids, which says nothing here."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]


class InputCall(msgspec.Struct, frozen=True):
    """A call that an earlier answer made."""

    call_id: str
    name: str
    arguments: str


class InputCallOutput(msgspec.Struct, frozen=True):
    """What came of a call."""

    call_id: str
    output: str | list[TextPart]


class ThoughtPart(msgspec.Struct, frozen=True):
    """A stretch of thoughts, or of their summary."""

    text: str


class InputReasoning(msgspec.Struct, frozen=True):
    """What the model thought before an earlier answer; the summary where the whole is not told."""

    summary: list[ThoughtPart] = []
    content: list[ThoughtPart] | None = None


Item = InputMessage | InputCall | InputCallOutput | InputReasoning

_KINDS: dict[str, type[Item]] = {
    "message": InputMessage,
    "function_call": InputCall,
    "function_call_output": InputCallOutput,
    "reasoning": InputReasoning,
}


def as_chat(body: ResponsesBody) -> ChatBody:
    """The same request in the terms of chat completions, but for its sampling options.

    Raises `InvalidRequest` for items that cannot be understood, and `HttpError` for tools that
    would have to run here.
    """
    choice = body.tool_choice
    return ChatBody(
        messages=list(_messages(body)),
        tools=[_tool(tool, index) for index, tool in enumerate(body.tools)],
        tool_choice=NamedTool("function", FunctionName(choice.name))
        if isinstance(choice, ResponseToolName)
        else choice,
        parallel_tool_calls=body.parallel_tool_calls,
        stream=body.stream,
        priority=body.priority,
        cache_salt=body.cache_salt,
    )


def _messages(body: ResponsesBody) -> Iterator[ChatMessage]:
    if body.instructions is not None:
        yield ChatMessage(role="system", content=body.instructions)
    if isinstance(body.input, str):
        yield ChatMessage(role="user", content=body.input)
        return
    answer: list[Item] = []  # of one turn of the assistant
    for item in (_item(given, index) for index, given in enumerate(body.input)):
        if _is_models(item):
            answer.append(item)
            continue
        yield from _answered(answer)
        answer = []
        if isinstance(item, InputMessage):
            yield ChatMessage(role=item.role, content=_text(item.content))
        elif isinstance(item, InputCallOutput):
            yield ChatMessage(role="tool", content=_text(item.output), tool_call_id=item.call_id)
    yield from _answered(answer)


def _item(given: dict[str, Any], index: int) -> Item:
    kind = given.get("type") or "message"
    place = f"input[{index}]"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidRequest(
            f"{place}: items of type {kind} are not supported.",
            param="input",
            remedy=f"Send items of type {', '.join(_KINDS)}; nothing is stored here.",
        )
    try:
        return msgspec.convert(given, _KINDS[kind])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{place}: {error}.", param="input") from None


def _is_models(item: Item) -> bool:
    if isinstance(item, InputMessage):
        return item.role == "assistant"
    return isinstance(item, InputCall | InputReasoning)


def _answered(answer: list[Item]) -> Iterator[ChatMessage]:
    """One message of what the model said, thought and called in one turn."""
    if not answer:
        return
    texts = [_text(item.content) for item in answer if isinstance(item, InputMessage)]
    thoughts = [_thoughts(item) for item in answer if isinstance(item, InputReasoning)]
    calls = [
        PastCall(CalledFunction(item.name, item.arguments), item.call_id)
        for item in answer
        if isinstance(item, InputCall)
    ]
    yield ChatMessage(
        role="assistant",
        content="\n".join(texts) if texts else None,
        reasoning_content="\n".join(filter(None, thoughts)) or None,
        tool_calls=calls or None,
    )


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else _lines(content)


def _thoughts(item: InputReasoning) -> str:
    return _lines(item.content or item.summary)


def _lines(parts: Iterable[TextPart | ThoughtPart]) -> str:
    return "\n".join(part.text for part in parts)


def _tool(given: dict[str, Any], index: int) -> Tool:
    if given.get("type") != "function":
        raise HttpError(
            400,
            f"tools[{index}]: tools of type {given.get('type')} run at OpenAI, and not here.",
            param="tools",
            code="unsupported_parameter",
        )
    try:
        tool = msgspec.convert(given, ResponseTool)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"tools[{index}]: {error}.", param="tools") from None
    function = FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict)
    return Tool("function", function)
