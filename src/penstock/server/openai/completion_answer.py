"""Answers of /v1/completions: one document, or a stream of events."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cached_property
from operator import attrgetter
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.answers import entries_size, rendered
from penstock.server.generations import Arrival, Generations
from penstock.server.openai.job import SYSTEM_FINGERPRINT, Job, Usage, collected, token_ids_part
from penstock.server.openai.logprobs import (
    CompletionLogprobs,
    PromptLogprob,
    TextOffsets,
    completion_logprobs,
    echoed_logprobs,
    joined,
    prompt_logprobs,
)
from penstock.server.prompts import Prompt, off_loop_if_long
from penstock.server.sse import EventTemplate, json_part, json_text
from penstock.vocabulary.messages import FinishReason, TokenLogprobs
from penstock.vocabulary.results import CompletionOutput, Delta, RequestOutput


class CompletionJob(Job, frozen=True, kw_only=True):
    """A job whose answer may begin with the prompt, or consist of nothing else.

    Of the `params.n` completions drawn for each prompt, `n` are answered.
    """

    n: int
    echo: bool
    echo_only: bool
    reports_logprobs: bool
    reports_prompt_logprobs: bool

    def echoed_text(self, position: int) -> str:
        """The text before the completion; empty unless the prompt is echoed."""
        prompt = self.prompts[position]
        if not self.echo:
            return ""
        return self.tokenizer.decode(prompt.token_ids) if prompt.text is None else prompt.text

    def offsets(self, position: int) -> TextOffsets:
        """Where the tokens of a completion begin in its choice's text."""
        return TextOffsets(
            self.tokenizer,
            prompt_token_ids=self.prompts[position].token_ids,
            offset=len(self.echoed_text(position)),
            skip_special_tokens=self.params.skip_special_tokens,
        )


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One completion. `stop_reason` is the stop string or token that ended it, if one did."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer: the completions of the first prompt, then of the next."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage


async def completion_document(job: CompletionJob, generations: Generations) -> bytes:
    """The whole answer as JSON."""
    outputs, usage = await collected(_arrivals(job, generations), job)
    return await rendered(lambda: completion_json(job, outputs, usage), outputs)


def completion_json(job: CompletionJob, outputs: list[RequestOutput], usage: Usage) -> bytes:
    """What came of each prompt as one answer."""
    return msgspec.json.encode(
        Completion(
            id=job.id,
            created=job.created,
            model=job.model,
            choices=[
                _choice(job, position, output, completion)
                for position, output in enumerate(outputs)
                for completion in likeliest(output.outputs, job.n)
            ],
            usage=usage,
        )
    )


async def completion_events(job: CompletionJob, generations: Generations) -> AsyncGenerator[bytes]:
    """The answer as it comes: an event is a stretch of one choice's text, the last with its end."""
    usage = Usage.of_prompts(job.prompts)
    template = EventTemplate(
        {
            "id": job.id,
            "object": "text_completion",
            "created": job.created,
            "model": job.model,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        },
        usage,
        job.usage_events,
    )
    streams = [_PromptStream(job, position, template) for position in range(len(job.prompts))]
    async with aclosing(_arrivals(job, generations)) as arrivals:
        async for position, delta in arrivals:
            usage.add(delta)
            for event in await streams[position].of(delta):
                yield event
    yield template.end()


async def _arrivals(job: CompletionJob, generations: Generations) -> AsyncGenerator[Arrival]:
    """What the engine brings, without the one token that it must draw when none is wanted."""
    async with aclosing(generations.arrivals()) as arrivals:
        async for position, delta in arrivals:
            yield Arrival(position, _silenced(delta) if job.echo_only else delta)


def _silenced(delta: Delta) -> Delta:
    reason = None if delta.finish_reason is None else FinishReason.LENGTH
    return msgspec.structs.replace(
        delta, text="", token_ids=[], logprobs=[], finish_reason=reason, stop_reason=None
    )


def _choice(
    job: CompletionJob, position: int, output: RequestOutput, completion: CompletionOutput
) -> CompletionChoice:
    logprobs = None
    if completion.logprobs is not None and job.reports_logprobs:
        num_top = job.params.logprobs or 0
        logprobs = completion_logprobs(
            completion.logprobs, num_top, job.token_texts, job.offsets(position)
        )
        if job.echo:
            entries = [entry for entry in output.prompt_logprobs or () if entry is not None]
            echoed = echoed_logprobs(output.prompt_token_ids, entries, num_top, job.token_texts)
            logprobs = joined(echoed, logprobs)
    return CompletionChoice(
        index=position * job.n + completion.index,
        text=job.echoed_text(position) + completion.text,
        logprobs=logprobs,
        finish_reason=completion.finish_reason,
        stop_reason=completion.stop_reason,
        prompt_logprobs=prompt_logprobs(output.prompt_logprobs, job.tokenizer)
        if job.reports_prompt_logprobs and output.prompt_logprobs is not None
        else UNSET,
        token_ids=completion.token_ids if job.returns_token_ids else UNSET,
        prompt_token_ids=output.prompt_token_ids if job.returns_token_ids else UNSET,
    )


def likeliest(completions: list[CompletionOutput], count: int) -> list[CompletionOutput]:
    """The `count` completions whose tokens were likeliest on average, best first, renumbered.

    If that is all of them, they stay as they are.
    """
    if count == len(completions):
        return completions
    ranked = sorted(completions, key=attrgetter("mean_logprob"), reverse=True)[:count]
    return [
        msgspec.structs.replace(completion, index=index) for index, completion in enumerate(ranked)
    ]


class _PromptStream:
    """Renders the deltas of one prompt's completions.

    An echoed prompt with log probabilities comes in several steps; what follows it is held until
    all of it is there.
    """

    def __init__(self, job: CompletionJob, position: int, template: EventTemplate) -> None:
        self._job = job
        self._position = position
        self._template = template
        self._with_logprobs = job.params.logprobs is not None
        self._offsets = [
            job.offsets(position) for _ in range(job.params.n if self._with_logprobs else 0)
        ]
        self._prompt_logprobs: list[TokenLogprobs] = []
        self._held: list[Delta] = []
        self._unopened = set(range(job.params.n)) if job.echo else set()
        self._untold = set(range(job.params.n)) if job.returns_token_ids else set()

    async def of(self, delta: Delta) -> list[bytes]:
        """Its events, none if it is held."""
        if not (self._unopened and self._with_logprobs):
            return list(self._events(delta))
        if delta.index == 0:
            self._prompt_logprobs += delta.prompt_logprobs
        self._held.append(delta)
        if len(self._prompt_logprobs) < len(self._prompt.token_ids) - 1:
            return []
        ready, self._held = self._held, []
        return await off_loop_if_long(
            lambda: [event for each in ready for event in self._events(each)],
            entries_size(self._prompt_logprobs),
        )

    @property
    def _prompt(self) -> Prompt:
        return self._job.prompts[self._position]

    @cached_property
    def _echoed_logprobs(self) -> CompletionLogprobs:
        return echoed_logprobs(
            self._prompt.token_ids,
            self._prompt_logprobs,
            self._job.params.logprobs or 0,
            self._job.token_texts,
        )

    def _events(self, delta: Delta) -> Iterator[bytes]:
        opens = delta.index in self._unopened
        self._unopened.discard(delta.index)
        token_ids = self._token_ids(delta)
        if not (opens or delta.text or delta.logprobs or delta.finish_reason or token_ids):
            return
        echoed = self._job.echoed_text(self._position) if opens else ""
        yield self._template.choice(
            b'{"index":%d,"text":' % (self._position * self._job.n + delta.index),
            json_text(echoed + delta.text),
            b',"logprobs":',
            self._logprobs(delta, opens=opens) if self._with_logprobs else b"null",
            token_ids,
            _PLAIN_END if delta.finish_reason is None else _end(delta),
        )

    def _token_ids(self, delta: Delta) -> bytes:
        if not self._job.returns_token_ids:
            return b""
        is_first = delta.index in self._untold
        self._untold.discard(delta.index)
        prompt = self._prompt.token_ids if is_first else []
        return token_ids_part(prompt, "prompt_token_ids") + token_ids_part(delta.token_ids)

    def _logprobs(self, delta: Delta, *, opens: bool) -> bytes:
        logprobs = completion_logprobs(
            delta.logprobs,
            self._job.params.logprobs or 0,
            self._job.token_texts,
            self._offsets[delta.index],
        )
        return json_part(joined(self._echoed_logprobs, logprobs) if opens else logprobs)


_PLAIN_END = b',"finish_reason":null,"stop_reason":null}'


def _end(delta: Delta) -> bytes:
    reason = b"null" if delta.finish_reason is None else json_part(delta.finish_reason.value)
    return b',"finish_reason":%b,"stop_reason":%b}' % (reason, json_part(delta.stop_reason))
