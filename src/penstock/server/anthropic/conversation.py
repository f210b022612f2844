"""Anthropic's conversations as the chat pipeline knows them."""

from collections.abc import Iterator
from typing import Any

from penstock.server.anthropic.bodies import (
    AnyChoice,
    AssistantMessage,
    ClientTool,
    ConversationBody,
    Message,
    NoChoice,
    OneChoice,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ThinkingDisabled,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from penstock.server.openai.bodies import ChatBody, ChatMessage
from penstock.server.openai.tools import (
    CalledFunction,
    FunctionDefinition,
    FunctionName,
    NamedTool,
    PastCall,
    Tool,
    ToolChoice,
)


def as_chat(body: ConversationBody, *, stream: bool = False) -> ChatBody:
    """The same request in the terms of chat completions, but for its sampling options.

    An answer that the client has begun, as the last message, is to be continued.
    """
    system = [] if body.system is None else [_said("system", body.system)]
    return ChatBody(
        messages=[*system, *(each for message in body.messages for each in _messages(message))],
        tools=None if body.tools is None else [_tool(tool) for tool in body.tools],
        tool_choice=_choice(body),
        parallel_tool_calls=not getattr(body.tool_choice, "disable_parallel_tool_use", False),
        chat_template_kwargs=_variables(body),
        continue_final_message=isinstance(body.messages[-1], AssistantMessage),
        stream=stream,
    )


def _messages(message: Message) -> Iterator[ChatMessage]:
    match message:
        case SystemMessage(content):
            yield _said("system", content)
        case AssistantMessage(content):
            yield _answer(content)
        case UserMessage(content):
            yield from _turn(content)


def _turn(content: str | list[TextBlock | ToolResultBlock]) -> Iterator[ChatMessage]:
    """Each result is a message of its own, and so is each stretch of text."""
    blocks = [TextBlock(content)] if isinstance(content, str) else content
    texts: list[TextBlock] = []
    for block in blocks:
        if isinstance(block, TextBlock):
            texts.append(block)
            continue
        if texts:
            yield _said("user", texts)
            texts = []
        yield _result(block)
    if texts:
        yield _said("user", texts)


def _said(role: Any, content: str | list[TextBlock]) -> ChatMessage:
    return ChatMessage(role=role, content=_joined(content))


def _joined(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _result(block: ToolResultBlock) -> ChatMessage:
    text = _joined(block.content or "")
    return ChatMessage(
        role="tool",
        content=f"Error: {text}" if block.is_error else text,
        tool_call_id=block.tool_use_id,
    )


def _answer(content: str | list[Any]) -> ChatMessage:
    if isinstance(content, str):
        return ChatMessage(role="assistant", content=content)
    texts = [block for block in content if isinstance(block, TextBlock)]
    thoughts = [block.thinking for block in content if isinstance(block, ThinkingBlock)]
    calls = [
        PastCall(CalledFunction(block.name, block.input), block.id)
        for block in content
        if isinstance(block, ToolUseBlock)
    ]
    return ChatMessage(
        role="assistant",
        content=_joined(texts) if texts else None,
        reasoning_content="".join(thoughts) or None,
        tool_calls=calls or None,
    )


def _tool(tool: ClientTool) -> Tool:
    function = FunctionDefinition(tool.name, tool.description, tool.input_schema, tool.strict)
    return Tool("function", function)


def _choice(body: ConversationBody) -> ToolChoice | None:
    match body.tool_choice:
        case NoChoice():
            return "none"
        case AnyChoice():
            return "required"
        case OneChoice(name):
            return NamedTool("function", FunctionName(name))
    return None


def _variables(body: ConversationBody) -> dict[str, Any] | None:
    if body.thinking is None:
        return None
    return {"enable_thinking": not isinstance(body.thinking, ThinkingDisabled)}
