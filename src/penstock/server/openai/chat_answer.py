"""Answers of /v1/chat/completions: one document, or a stream of events."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.generations import Generations
from penstock.server.openai.job import Job, Usage, collected
from penstock.server.openai.logprobs import (
    ChatLogprobs,
    PromptLogprob,
    chat_logprobs,
    prompt_logprobs,
)
from penstock.server.sse import DONE, EventTemplate, json_part, json_text
from penstock.vocabulary.results import CompletionOutput, Delta


class AnswerMessage(msgspec.Struct, frozen=True):
    """What the model says."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers. `stop_reason` is the stop string or token that ended it, if one did."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `prompt_logprobs` is there if asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | UnsetType = UNSET


async def chat_document(job: Job, generations: Generations) -> bytes:
    """The whole answer as JSON."""
    (output,), usage = await collected(generations.arrivals(), job)
    return msgspec.json.encode(
        ChatCompletion(
            id=job.id,
            created=job.created,
            model=job.model,
            choices=[_choice(completion, job) for completion in output.outputs],
            usage=usage,
            prompt_logprobs=UNSET
            if output.prompt_logprobs is None
            else prompt_logprobs(output.prompt_logprobs, job.tokenizer),
        )
    )


async def chat_events(job: Job, generations: Generations) -> AsyncGenerator[bytes]:
    """The answer as it comes: for each choice its role, its text, and why it ended."""
    events = _ChatEvents(job)
    usage = Usage.of_prompts(job.prompts)
    async with aclosing(generations.arrivals()) as arrivals:
        async for _, delta in arrivals:
            usage.add(delta)
            for event in events.of(delta):
                yield event
    if job.include_usage:
        yield events.template.usage(usage)
    yield DONE


class _ChatEvents:
    """Renders deltas."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._opened: set[int] = set()
        self.template = EventTemplate(
            {
                "id": job.id,
                "object": "chat.completion.chunk",
                "created": job.created,
                "model": job.model,
            },
            include_usage=job.include_usage,
        )

    def of(self, delta: Delta) -> Iterator[bytes]:
        head = b'{"index":%d,"delta":' % delta.index
        if delta.index not in self._opened:
            self._opened.add(delta.index)
            yield self.template.choice(
                head,
                b'{"role":"assistant","content":"","refusal":null},'
                b'"logprobs":null,"finish_reason":null}',
            )
        if delta.text or delta.logprobs:
            yield self.template.choice(
                head,
                b'{"content":',
                json_text(delta.text),
                b'},"logprobs":',
                self._logprobs(delta),
                b',"finish_reason":null}',
            )
        if delta.finish_reason is not None:
            yield self.template.choice(
                head,
                b'{},"logprobs":null,"finish_reason":"',
                delta.finish_reason.value.encode(),
                b'","stop_reason":',
                json_part(delta.stop_reason),
                b"}",
            )

    def _logprobs(self, delta: Delta) -> bytes:
        if self._job.params.logprobs is None:
            return b"null"
        return json_part(
            chat_logprobs(delta.logprobs, self._job.params.logprobs, self._job.tokenizer)
        )


def _choice(output: CompletionOutput, job: Job) -> ChatChoice:
    num_top = job.params.logprobs or 0
    return ChatChoice(
        index=output.index,
        message=AnswerMessage(output.text),
        logprobs=None
        if output.logprobs is None
        else chat_logprobs(output.logprobs, num_top, job.tokenizer),
        finish_reason=output.finish_reason,
        stop_reason=output.stop_reason,
    )
