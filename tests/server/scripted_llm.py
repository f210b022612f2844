"""An engine front that says what it is told to, token by token, and remembers what came of it.

A token is a byte: the id of "H" is 72. Special tokens follow after 255.
"""

import asyncio
import functools
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from penstock.engine.step_log import StepLog
from penstock.engine.transcript import Transcript
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import EngineFailed, InvalidRequest, Overloaded, Unavailable
from penstock.vocabulary.messages import (
    EngineStats,
    FinishReason,
    Output,
    Request,
    TokenLogprobs,
)
from penstock.vocabulary.results import Delta
from penstock.vocabulary.sampling_params import SamplingParams

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Script:
    """What a completion says, and how. A failure or a standstill comes after that many tokens; a
    standstill lasts `until` it is told to end, and without that until the request is cancelled.
    """

    text: str = "Hello!"
    tokens_per_step: int = 1
    delay_s: float = 0.0
    fails_after: int | None = None
    hangs_after: int | None = None
    until: threading.Event | None = None
    num_cached: int = 0
    queued_s: float | None = None
    mean_logprobs: tuple[float, ...] = ()  # of each completion; else all are alike
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens anywhere
    refused: str | None = None  # what the engine finds wrong with the request's grammar


@dataclass(frozen=True)
class Submission:
    """What the server has asked for."""

    request: Request

    @property
    def prompt(self) -> str:
        return bytes(self.request.prompt_token_ids).decode()

    @property
    def special_token_ids(self) -> list[int]:
        """Those in the prompt; without special tokens beyond `<|end|>` there is nothing to see."""
        return [id_ for id_ in self.request.prompt_token_ids if id_ > 255]

    @property
    def params(self) -> SamplingParams:
        return self.request.sampling


@dataclass
class ScriptedReplica:
    """Stands for one of several engines."""

    is_ready: bool = True
    pid: int | None = None
    stats: EngineStats = field(default_factory=EngineStats)


class ScriptedLLM:
    """Stands where `AsyncLLM` stands, and for its only engine. `refusal` is raised by the next
    submissions.
    """

    def __init__(
        self,
        script: Script | Callable[[Request], Script] | None = None,
        *,
        max_model_len: int = 1000,
        sampling_defaults: dict[str, Any] | None = None,
        chat_template: str | None = CHAT_TEMPLATE,
        special_tokens: tuple[str, ...] = (),
    ) -> None:
        self.script = script or Script()
        self.tokenizer = byte_tokenizer(chat_template, special_tokens)
        self.model_name = "scripted"
        self.max_model_len = max_model_len
        self.max_in_flight = 1000
        self.end_token_ids = frozenset({256})
        self.embedding_size = 4
        self.sampling_defaults = sampling_defaults or {}
        self.watermark_key: str | None = None
        self.stats = EngineStats()
        self.pid: int | None = None
        self.replicas: list[Any] = [self]
        self.steps = StepLog()
        self.heartbeat_age_s = 0.1
        self.is_ready = True
        self.refusal: Exception | None = None
        self.num_until_refusal = 0
        self.submissions: list[Submission] = []
        self.num_resets = 0
        self.cancelled: list[str] = []
        self.in_flight: set[str] = set()

    @property
    def num_in_flight(self) -> int:
        return len(self.in_flight)

    def reset_prefix_cache(self) -> None:
        self.num_resets += 1

    def check_room(self) -> None:
        is_full = isinstance(self.refusal, Overloaded | Unavailable)
        if self.refusal is not None and is_full and not self.num_until_refusal:
            raise self.refusal

    def submit(
        self,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        salt: str = "",
        shown_token_ids: frozenset[int] = frozenset(),
        embeds: bool = False,
    ) -> "ScriptedGeneration":
        if self.refusal is not None:
            if not self.num_until_refusal:
                raise self.refusal
            self.num_until_refusal -= 1
        request = Request(
            request_id=request_id or f"scripted-{len(self.submissions)}",
            prompt_token_ids=prompt_token_ids,
            sampling=params,
            priority=priority,
            salt=salt,
            embeds=embeds,
        )
        self.submissions.append(Submission(request))
        self.in_flight.add(request.request_id)
        script = self.script(request) if callable(self.script) else self.script
        transcript = Transcript(request, self.tokenizer, shown_token_ids=shown_token_ids)
        return ScriptedGeneration(request, script, transcript, self)

    @property
    def last(self) -> Submission:
        return self.submissions[-1]


class ScriptedGeneration:
    """One submitted prompt."""

    def __init__(
        self, request: Request, script: Script, transcript: Transcript, owner: ScriptedLLM
    ) -> None:
        self.request_id = request.request_id
        self._request = request
        self._script = script
        self._transcript = transcript
        self._owner = owner
        self._cancelled = asyncio.Event()
        self._admitted_at = None if script.queued_s is None else time.monotonic() + script.queued_s

    def cancel(self) -> None:
        if self.request_id in self._owner.in_flight:
            self._owner.in_flight.remove(self.request_id)
            self._owner.cancelled.append(self.request_id)
        self._cancelled.set()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        if self._script.refused is not None:
            grammar = self._request.sampling.grammar
            raise InvalidRequest(self._script.refused, param=grammar.param if grammar else None)
        for number, output in enumerate(self._outputs()):
            await self._wait(self._script.hangs_after == number)
            if self._script.fails_after == number:
                raise EngineFailed("The engine process died while it worked on this request.")
            if self._cancelled.is_set():
                return
            delta = self._transcript.add(output)
            if self._transcript.has_ended:
                self._owner.in_flight.discard(self.request_id)
            if delta is not None:
                yield delta

    async def _wait(self, stands_still: bool) -> None:
        until = self._script.until
        if stands_still and until is None:
            await self._cancelled.wait()
        elif stands_still:
            while not (until.is_set() or self._cancelled.is_set()):
                await asyncio.sleep(0.005)
        elif self._script.delay_s:
            await asyncio.sleep(self._script.delay_s)

    def _outputs(self) -> list[Output]:
        if self._request.embeds:
            vector = scripted_embedding(self._request.prompt_token_ids)
            return [self._output(embedding=vector, finish_reason=FinishReason.STOP)]
        return [*self._prompt_outputs(), *self._completion_outputs()]

    def _prompt_outputs(self) -> list[Output]:
        """The prompt's log probabilities come in two steps, as those of a long prompt do."""
        num_top = self._request.sampling.prompt_logprobs
        if num_top is None:
            return []
        entries = [scripted_logprobs(id_, num_top) for id_ in self._request.prompt_token_ids[1:]]
        half = len(entries) // 2
        return [self._output(prompt_logprobs=part) for part in (entries[:half], entries[half:])]

    def _completion_outputs(self) -> list[Output]:
        params, step = self._request.sampling, self._script.tokens_per_step
        said = self._owner.tokenizer.encode(self._script.text)
        token_ids = said[: params.max_tokens]
        reason = FinishReason.STOP if len(said) == len(token_ids) else FinishReason.LENGTH
        outputs = []
        for start in range(0, len(token_ids), step):
            ids = token_ids[start : start + step]
            output = self._output(
                token_ids=ids,
                logprobs=[]
                if params.logprobs is None
                else [scripted_logprobs(id_, params.logprobs) for id_ in ids],
                finish_reason=reason if start + step >= len(token_ids) else None,
                num_cached=None if start else self._script.num_cached,
                admitted_at=None if start else self._admitted_at,
            )
            outputs += [self._of(output, index) for index in range(params.n)]
        return outputs

    def _of(self, output: Output, index: int) -> Output:
        """The same of another completion, which may be more or less likely."""
        logprobs = output.logprobs
        if self._script.mean_logprobs:
            logprob = self._script.mean_logprobs[index]
            logprobs = [msgspec.structs.replace(entry, logprob=logprob) for entry in logprobs]
        if self._script.top:
            top = list(self._script.top)[: self._request.sampling.logprobs]
            logprobs = [msgspec.structs.replace(entry, top=top) for entry in logprobs]
        return msgspec.structs.replace(output, index=index, logprobs=logprobs)

    def _output(self, **fields: Any) -> Output:
        return Output(request_id=self.request_id, **fields)


def scripted_logprobs(token_id: int, num_top: int) -> TokenLogprobs:
    """The token itself is likeliest, its successors follow."""
    top = [(token_id + rank, -0.5 - rank) for rank in range(num_top)]
    return TokenLogprobs(token_id, -0.5, 1, top)


def scripted_embedding(token_ids: list[int]) -> list[float]:
    """Any vector of length 1 that tells texts apart."""
    angle = float(sum(token_ids))
    return [math.cos(angle), 0.0, math.sin(angle), 0.0]


@functools.cache
def byte_tokenizer(chat_template: str | None, special_tokens: tuple[str, ...] = ()) -> Tokenizer:
    """The real tokenizer over a vocabulary of 256 bytes, and special tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    spelling = {byte: chr(byte) for byte in printable}
    spelling |= {byte: chr(256 + place) for place, byte in enumerate(hidden)}
    vocab = {spelling[byte]: byte for byte in range(256)}
    library = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(["<|end|>", *special_tokens])
    return Tokenizer(
        library,
        special_tokens={"eos_token": "<|end|>"},
        chat_template_source=chat_template,
    )
