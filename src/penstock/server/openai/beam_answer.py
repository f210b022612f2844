"""Completions and chats by beam search: the engine is asked for one token of every beam a step."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.engine.transcript import Transcript, empty_result
from penstock.server.answers import WholeAnswer, rendered
from penstock.server.auth import salt_of
from penstock.server.beams import Beam, BeamSearch
from penstock.server.engine_front import Generation
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.openai.bodies import GenerationBody
from penstock.server.openai.job import Job, Usage
from penstock.server.prompts import Prompt
from penstock.server.visit import Visit, visit_of
from penstock.vocabulary.errors import EngineFailed, InvalidRequest
from penstock.vocabulary.messages import FinishReason, Output
from penstock.vocabulary.messages import Request as EngineRequest
from penstock.vocabulary.results import RequestOutput
from penstock.vocabulary.sampling_params import MAX_LOGPROBS, SamplingParams

Render = Callable[[list[RequestOutput], Usage], bytes]

_HEEDED = frozenset(
    {"n", "max_tokens", "ignore_eos", "logprobs", "skip_special_tokens", "seed", "temperature"}
)
"""Options that mean something to a search, or can mean nothing to what never draws."""


def check_beam_options(
    body: GenerationBody, params: SamplingParams, values: dict[str, Any]
) -> None:
    """Refuse what a search cannot heed, and its options where nothing is searched.

    `values` are what the client gave, since a model's own defaults are no wish of his.
    """
    if not body.use_beam_search:
        if body.length_penalty != 1.0 or body.early_stopping is not False:
            raise InvalidRequest(
                "length_penalty and early_stopping need use_beam_search.", param="use_beam_search"
            )
        return
    if body.stream:
        raise InvalidRequest(
            "A beam search cannot be streamed: which text is best is known at the end.",
            param="stream",
        )
    if params.grammar is not None:
        raise InvalidRequest(
            f"{params.grammar.param} cannot be combined with use_beam_search.",
            param=params.grammar.param,
        )
    untouched = SamplingParams()
    for name in SamplingParams.__struct_fields__:
        is_given = values.get(name) is not None
        if name not in _HEEDED and is_given and getattr(params, name) != getattr(untouched, name):
            raise InvalidRequest(f"{name} cannot be combined with use_beam_search.", param=name)
    if values.get("temperature") not in (None, 0, 1):
        raise InvalidRequest(
            "A beam search draws nothing: temperature must be 0 or 1.", param="temperature"
        )


def searched(
    front: Front,
    request: Request,
    body: GenerationBody,
    job: Job,
    *,
    width: int,
    n: int,
    render: Render,
) -> Response:
    """Answer a job with the `n` best of `width` beams for each of its prompts."""
    end_token_ids = frozenset() if job.params.ignore_eos else front.llm.end_token_ids
    search = partial(
        BeamSearch,
        width=width,
        max_tokens=job.params.max_tokens or 1,
        end_token_ids=end_token_ids,
        length_penalty=body.length_penalty,
        early_stopping=body.early_stopping,
    )
    if search().num_candidates > MAX_LOGPROBS:
        most = MAX_LOGPROBS - len(end_token_ids)
        raise InvalidRequest(
            f"{width} beams are more than the {most} that can be searched.", param="n"
        )
    if width > front.settings.max_n:
        raise InvalidRequest(
            f"{width} beams are asked for; this server allows {front.settings.max_n}.", param="n"
        )
    front.check_open()
    visit = visit_of(request.scope)
    salt = salt_of(request.scope) + (body.cache_salt or "")
    driver = _Driver(front, body, job, visit=visit, salt=salt, n=n)
    unused = Generations(front, job.id, visit=visit)
    return WholeAnswer(front, unused, lambda _: driver.document(search, render))


class _Driver:
    """Runs the searches of one request, each step of a search through the engine."""

    def __init__(
        self, front: Front, body: GenerationBody, job: Job, *, visit: Visit, salt: str, n: int
    ) -> None:
        self._front = front
        self._job = job
        self._n = n
        self._priority = visit.priority(body.priority)
        self._salt = salt
        self._visit = visit
        self._asked: set[Generation] = set()
        visit.params = job.params
        visit.work.append(self)

    def give_up(self) -> None:
        """Whoever waits for this hears that it was cancelled."""
        for generation in self._asked:
            generation.cancel()

    async def document(self, new_search: Callable[[], BeamSearch], render: Render) -> bytes:
        prompts = self._job.prompts
        tasks = [
            asyncio.create_task(self._run(new_search(), prompt, position))
            for position, prompt in enumerate(prompts)
        ]
        try:
            outputs = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        usage = Usage.of_prompts(prompts)
        completions = [each for output in outputs for each in output.outputs]
        usage.completion_tokens = sum(len(each.token_ids) for each in completions)
        usage.total_tokens += usage.completion_tokens
        for each in completions:
            self._front.metrics.finished(each.finish_reason or "")
            self._visit.finish_reasons.append(each.finish_reason or "")
        return await rendered(lambda: render(outputs, usage), outputs)

    async def _run(self, search: BeamSearch, prompt: Prompt, position: int) -> RequestOutput:
        self._visit.took(prompt_tokens=len(prompt.token_ids))
        while not search.is_done:
            self._visit.took(generated_tokens=len(search.running))
            search.step(await self._likeliest(search, prompt, position))
        params = msgspec.structs.replace(self._job.params, n=self._n)
        request = EngineRequest(
            request_id=self._job.id, prompt_token_ids=prompt.token_ids, sampling=params
        )
        output = empty_result(request, prompt.text)
        transcript = Transcript(
            request, self._job.tokenizer, shown_token_ids=self._job.shown_token_ids
        )
        for index, beam in enumerate(search.finished[: self._n]):
            delta = transcript.add(self._output(beam, index))
            assert delta is not None, "a beam that ended twice"
            output.add(delta)
        return output

    async def _likeliest(
        self, search: BeamSearch, prompt: Prompt, position: int
    ) -> list[list[tuple[int, float]]]:
        """The likeliest next tokens of every running beam. What they begin with is cached."""
        params = SamplingParams(
            max_tokens=1, temperature=0, ignore_eos=True, logprobs=search.num_candidates
        )
        asked: list[Generation] = []
        try:
            for number, beam in enumerate(search.running):
                generation = self._front.llm.submit(
                    prompt.token_ids + beam.token_ids,
                    params,
                    request_id=f"{self._job.id}-{position}-{number}",
                    priority=self._priority,
                    salt=self._salt,
                )
                asked.append(generation)
            self._asked.update(asked)
            return [await self._top(generation) for generation in asked]
        finally:
            self._asked.difference_update(asked)
            for generation in asked:
                generation.cancel()

    async def _top(self, generation: Generation) -> list[tuple[int, float]]:
        entries = [entry async for delta in generation for entry in delta.logprobs]
        if not entries:
            self._visit.check_wanted()
            raise EngineFailed("The engine ended this request before it was complete.")
        return entries[0].top

    def _output(self, beam: Beam, index: int) -> Output:
        num_top = self._job.params.logprobs
        entries = () if num_top is None else beam.entries
        return Output(
            request_id=self._job.id,
            index=index,
            token_ids=beam.token_ids,
            logprobs=[msgspec.structs.replace(entry, top=entry.top[:num_top]) for entry in entries],
            finish_reason=FinishReason.STOP if beam.has_ended else FinishReason.LENGTH,
        )
