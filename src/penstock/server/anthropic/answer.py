"""Whole answers of /v1/messages."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from penstock.server.answers import rendered
from penstock.server.generations import Generations
from penstock.server.openai.chat_job import ChatJob
from penstock.server.openai.job import Usage, collected
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Reasoning
from penstock.vocabulary.messages import FinishReason
from penstock.vocabulary.results import CompletionOutput


class AnswerText(msgspec.Struct, tag="text"):
    """What the model says."""

    text: str


class AnswerThinking(msgspec.Struct, tag="thinking"):
    """What it thought before. Nothing is signed here, and nothing needs to be."""

    thinking: str
    signature: str = ""


class AnswerToolUse(msgspec.Struct, tag="tool_use"):
    """A call. What is no JSON object, because it was cut, say, is the value of INVALID_JSON."""

    id: str
    name: str
    input: dict[str, Any] = {}


Block = AnswerText | AnswerThinking | AnswerToolUse


class MessageUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens read and generated; those found in the prefix cache count as read from the cache."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "MessageUsage":
        """As Anthropic counts them."""
        num_cached = usage.prompt_tokens_details.cached_tokens
        return cls(
            input_tokens=usage.prompt_tokens - num_cached,
            cache_read_input_tokens=num_cached,
            output_tokens=usage.completion_tokens,
        )


class MessageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, and how one looks at the beginning of a stream."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


@dataclass(frozen=True)
class MessageJob:
    """A chat to be answered in Anthropic's words.

    `is_cut` says that the context has no room for all the tokens that the client allows.
    """

    chat: ChatJob
    is_cut: bool

    def ending(
        self, reason: str, stop_reason: int | str | None, num_calls: int
    ) -> tuple[str, str | None]:
        """Why the answer ended, and the stop sequence that ended it, if one did."""
        if reason == FinishReason.LENGTH.value:
            return ("model_context_window_exceeded" if self.is_cut else "max_tokens"), None
        if isinstance(stop_reason, str):
            return "stop_sequence", stop_reason
        return ("tool_use" if num_calls else "end_turn"), None

    def message(
        self, content: list[Block], usage: Usage, *, ending: tuple[str | None, str | None]
    ) -> MessageAnswer:
        """An answer, or the beginning of one."""
        return MessageAnswer(
            id=self.chat.id,
            model=self.chat.model,
            content=content,
            stop_reason=ending[0],
            stop_sequence=ending[1],
            usage=MessageUsage.of(usage),
        )


async def message_document(job: MessageJob, generations: Generations) -> bytes:
    """The whole answer as JSON."""
    outputs, usage = await collected(generations.arrivals(), job.chat)
    return await rendered(lambda: _message_json(job, outputs[0].outputs[0], usage), outputs)


def _message_json(job: MessageJob, completion: CompletionOutput, usage: Usage) -> bytes:
    parser = job.chat.parser()
    pieces = parser.add(completion.text) + parser.finish()
    ending = job.ending(completion.finish_reason or "", completion.stop_reason, parser.num_calls)
    return msgspec.json.encode(job.message(_blocks(pieces), usage, ending=ending))


def _blocks(pieces: list[Piece]) -> list[Block]:
    blocks: list[Block] = []
    arguments: dict[int, str] = {}
    calls: list[AnswerToolUse] = []
    for piece in pieces:
        last = blocks[-1] if blocks else None
        match piece, last:
            case Content(text), AnswerText():
                last.text += text
            case Content(text), _:
                blocks.append(AnswerText(text))
            case Reasoning(text), AnswerThinking():
                last.thinking += text
            case Reasoning(text), _:
                blocks.append(AnswerThinking(text))
            case CallBegin(_, id_, name), _:
                calls.append(AnswerToolUse(id_, name))
                blocks.append(calls[-1])
            case CallArguments(index, text), _:
                arguments[index] = arguments.get(index, "") + text
    for index, call in enumerate(calls):
        call.input = _object(arguments.get(index, ""))
    return blocks


def _object(text: str) -> dict[str, Any]:
    """The arguments of a call; what the model wrote may be no JSON, or no object."""
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": text}
