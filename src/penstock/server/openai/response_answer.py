"""Answers of /v1/responses: one document, or a stream of events."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from penstock.server.errors import http_error_from
from penstock.server.generations import Generations
from penstock.server.openai.chat_job import ChatJob
from penstock.server.openai.job import Usage
from penstock.server.openai.logprobs import TokenLogprob, chat_logprobs
from penstock.server.openai.response_body import (
    ReasoningConfig,
    ResponsesBody,
    ResponseToolName,
    TextConfig,
)
from penstock.server.openai.response_items import Event, Output, OutputItem, OutputReasoning
from penstock.server.prompts import off_loop_if_long
from penstock.server.sse import json_part
from penstock.text.parsing.answer import AnswerParser
from penstock.vocabulary.messages import FinishReason, TokenLogprobs
from penstock.vocabulary.results import Delta


class InputTokensDetails(msgspec.Struct, frozen=True):
    """`cached_tokens` were found in the prefix cache; writing to it is not counted."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    """How many of the tokens are thoughts, as the tokenizer counts their text."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens read and generated."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFailure(msgspec.Struct, frozen=True):
    """Why there is no answer, or none that is whole."""

    message: str
    code: str = "server_error"


ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class ResponseDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: what was asked for, and what came of it so far. It is stored nowhere."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    background: bool = False
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: None = None
    reasoning: ReasoningConfig
    store: bool = False
    temperature: float
    text: TextConfig
    tool_choice: Literal["none", "auto", "required"] | ResponseToolName
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None


@dataclass
class Responding:
    """One answer in the making: what was asked for, its output so far, and what that took."""

    body: ResponsesBody
    chat: ChatJob
    output: Output = field(default_factory=Output)
    status: ResponseStatus = "in_progress"
    failure: ResponseFailure | None = None

    def __post_init__(self) -> None:
        self._usage = Usage.of_prompts(self.chat.prompts)
        self._parser: AnswerParser = self.chat.parser()

    def add(self, delta: Delta) -> Iterator[Event]:
        """Take in a step."""
        self._usage.add(delta)
        pieces = self._parser.add(delta.text)
        if delta.finish_reason is not None:
            pieces += self._parser.finish()
        yield from self.output.add(pieces, self._logprobs(delta.logprobs))
        if delta.finish_reason is not None:
            is_cut = delta.finish_reason is FinishReason.LENGTH
            self.status = "incomplete" if is_cut else "completed"
            yield from self.output.close("incomplete" if is_cut else "completed")

    @property
    def size(self) -> int:
        """About how many characters it has."""
        return 4 * self._usage.completion_tokens * (1 + (self.chat.params.logprobs or 0))

    def document(self) -> ResponseDocument:
        """The answer as it stands."""
        body, params = self.body, self.chat.params
        return ResponseDocument(
            id=self.chat.id,
            created_at=self.chat.created,
            status=self.status,
            error=self.failure,
            incomplete_details=IncompleteDetails() if self.status == "incomplete" else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=self.chat.model,
            output=self.output.items,
            parallel_tool_calls=body.parallel_tool_calls,
            reasoning=body.reasoning,
            temperature=params.temperature,
            text=body.text,
            tool_choice=body.tool_choice,
            tools=body.tools,
            top_logprobs=body.top_logprobs,
            top_p=params.top_p,
            usage=self._told_usage() if self.status in ("completed", "incomplete") else None,
        )

    def _told_usage(self) -> ResponseUsage:
        usage, tokenizer = self._usage, self.chat.tokenizer
        thoughts = [item for item in self.output.items if isinstance(item, OutputReasoning)]
        num_thought = sum(
            len(tokenizer.encode(part.text, add_special_tokens=False))
            for item in thoughts
            for part in item.content
        )
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(num_thought),
            total_tokens=usage.total_tokens,
        )

    def _logprobs(self, entries: list[TokenLogprobs]) -> list[TokenLogprob]:
        num_top = self.chat.params.logprobs
        if num_top is None:
            return []
        return chat_logprobs(entries, num_top, self.chat.token_texts).content


async def response_document(answer: Responding, generations: Generations) -> bytes:
    """The whole answer as JSON."""
    async with aclosing(generations.arrivals()) as arrivals:
        async for _, delta in arrivals:
            for _ in answer.add(delta):
                pass  # the events are a stream's
    return await off_loop_if_long(lambda: msgspec.json.encode(answer.document()), answer.size)


async def response_events(
    answer: Responding, generations: Generations, *, request_id: str
) -> AsyncGenerator[bytes]:
    """The answer as it comes: its head, its items one after the other, and how it ended."""
    numbered = _Numbered()
    try:
        async with aclosing(generations.arrivals()) as arrivals:
            async for _, delta in arrivals:
                if not numbered.count:
                    yield numbered.whole("response.created", answer)
                    yield numbered.whole("response.in_progress", answer)
                for event in answer.add(delta):
                    yield numbered.event(event)
    except Exception as error:
        if numbered.count:
            answer.status = "failed"
            answer.failure = ResponseFailure(http_error_from(error, request_id).detail.message)
            yield numbered.whole("response.failed", answer)
        raise
    ending = f"response.{answer.status}"
    yield await off_loop_if_long(lambda: numbered.whole(ending, answer), answer.size)


class _Numbered:
    """Events of one stream, which count."""

    def __init__(self) -> None:
        self.count = 0

    def event(self, event: Event) -> bytes:
        name, fields = event
        data = {"type": name, "sequence_number": self.count, **fields}
        self.count += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), json_part(data))

    def whole(self, name: str, answer: Responding) -> bytes:
        return self.event((name, {"response": answer.document()}))
