"""All that one HTTP request has asked of the engine."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from penstock.server.engine_front import Generation
from penstock.server.front import Front
from penstock.server.metrics import GenerationClock
from penstock.server.visit import Visit
from penstock.vocabulary.errors import EngineFailed, InvalidRequest
from penstock.vocabulary.messages import FinishReason
from penstock.vocabulary.results import Delta
from penstock.vocabulary.sampling_params import SamplingParams


class Arrival(NamedTuple):
    """A delta, and which of the request's prompts it continues."""

    position: int
    delta: Delta


def _reason(error: BaseException | None) -> str:
    match error:
        case EngineFailed():
            return "error"
        case InvalidRequest():
            return "refused"
        case _:
            return "cancelled"


class Generations:
    """The generations of one HTTP request. Leaving the `with` block cancels what is unfinished."""

    def __init__(self, front: Front, request_id: str, *, visit: Visit) -> None:
        self._front = front
        self._request_id = request_id
        self._visit = visit
        visit.work.append(self)
        self._unfinished: dict[int, Generation] = {}
        self._num_left: dict[int, int] = {}
        self._clocks: dict[int, GenerationClock] = {}

    def submit(
        self,
        prompts: Sequence[list[int]],
        params: SamplingParams,
        *,
        priority: int,
        salt: str,
        shown_token_ids: frozenset[int] = frozenset(),
        embeds: bool = False,
    ) -> Self:
        """Hand every prompt to the engine, behind those it has, or none if one is refused."""
        self._front.check_open()
        self._visit.check_wanted()
        self._check_size(len(prompts), params.n)
        self._check_logprobs(prompts, params)
        self._visit.params = params
        try:
            for position, token_ids in enumerate(prompts, start=len(self._num_left)):
                self._unfinished[position] = self._front.llm.submit(
                    token_ids,
                    params,
                    request_id=f"{self._request_id}-{position}",
                    priority=self._visit.priority(priority),
                    salt=salt,
                    shown_token_ids=shown_token_ids,
                    embeds=embeds,
                )
                self._num_left[position] = params.n
                self._clocks[position] = GenerationClock(
                    self._front.metrics,
                    self._visit,
                    num_completions=params.n,
                    num_prompt_tokens=len(token_ids),
                )
                self._visit.took(prompt_tokens=len(token_ids))
        except BaseException:
            self._cancel("cancelled")
            raise
        return self

    def give_up(self) -> None:
        """Whoever waits for this hears that it was cancelled."""
        for generation in self._unfinished.values():
            generation.cancel()

    def _check_size(self, num_prompts: int, n: int) -> None:
        """Refuse what would be told to come back later for ever."""
        if n > self._front.settings.max_n:
            raise InvalidRequest(
                f"n is {n}; this server allows {self._front.settings.max_n}.", param="n"
            )
        most = self._front.llm.max_in_flight
        num_completions = num_prompts * n + sum(self._num_left.values())
        if num_completions > most:
            raise InvalidRequest(
                f"The request asks for {num_completions} completions; at most {most} may run or "
                "wait at once.",
                param="prompt",
                remedy="Ask for fewer at a time.",
            )

    def _check_logprobs(self, prompts: Sequence[list[int]], params: SamplingParams) -> None:
        """They are kept until an answer is complete, and take far more memory than its text. Those
        of a prompt may be told with each of its completions.
        """
        count = 0
        if params.logprobs is not None:
            num_tokens = len(prompts) * (params.max_tokens or 0)
            count += num_tokens * (1 + params.logprobs)
        if params.prompt_logprobs is not None:
            count += sum(map(len, prompts)) * (1 + params.prompt_logprobs)
        count *= params.n
        most = self._front.settings.max_logprob_entries
        if count > most:
            asked = "logprobs" if params.prompt_logprobs is None else "prompt_logprobs"
            raise InvalidRequest(
                f"The request may come to {count} log probabilities; this server allows {most}.",
                param="n" if params.n > 1 else asked,
                remedy="Ask for fewer alternatives, tokens or completions.",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cancel(_reason(error))

    def _cancel(self, reason: str) -> None:
        while self._unfinished:
            position, generation = self._unfinished.popitem()
            generation.cancel()
            self._front.metrics.finished(reason, self._num_left[position])

    async def arrivals(self) -> AsyncGenerator[Arrival]:
        """Deltas of all prompts as they come. Close it when leaving early."""
        if len(self._unfinished) == 1:
            async for delta in self._deltas(0):
                yield Arrival(0, delta)
            return
        queue: asyncio.Queue[Arrival | Exception | None] = asyncio.Queue()
        tasks = [asyncio.create_task(self._forward(p, queue)) for p in list(self._unfinished)]
        try:
            num_left = len(tasks)
            while num_left:
                match await queue.get():
                    case None:
                        num_left -= 1
                    case Exception() as error:
                        raise error
                    case arrival:
                        yield arrival
        finally:
            for task in tasks:
                task.cancel()

    async def _forward(
        self, position: int, queue: asyncio.Queue[Arrival | Exception | None]
    ) -> None:
        try:
            async for delta in self._deltas(position):
                queue.put_nowait(Arrival(position, delta))
        except Exception as error:
            queue.put_nowait(error)
        else:
            queue.put_nowait(None)

    async def _deltas(self, position: int) -> AsyncGenerator[Delta]:
        """One prompt's deltas, timed; ends when all its completions have."""
        metrics = self._front.metrics
        clock = self._clocks[position]
        async for delta in self._unfinished[position]:
            clock.saw(delta)
            self._visit.took(generated_tokens=len(delta.token_ids))
            if delta.finish_reason is FinishReason.CANCELLED:
                break
            if delta.finish_reason is not None:
                metrics.finished(delta.finish_reason.value)
                self._visit.finish_reasons.append(delta.finish_reason.value)
                self._num_left[position] -= 1
                if not self._num_left[position]:
                    del self._unfinished[position]
                    clock.stop()
            yield delta
            if not self._num_left[position]:
                return
        self._visit.check_wanted()
        raise EngineFailed("The engine ended this request before it was complete.")
