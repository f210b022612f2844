"""Whole answers to TGI's requests for text."""

from collections.abc import Sequence
from contextlib import aclosing
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.answers import rendered
from penstock.server.generations import Generations
from penstock.server.tgi.details import (
    BestOfSequence,
    GenerateDetails,
    GeneratedToken,
    PrefillToken,
    end_reason,
    prefill_tokens,
)
from penstock.server.tgi.job import GenerateJob
from penstock.vocabulary.results import CompletionOutput, RequestOutput


class GenerateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The continuation. `details` are there if asked for."""

    generated_text: str
    details: GenerateDetails | UnsetType = UNSET


class Outcome(NamedTuple):
    """The whole answer to a job, and how many tokens its text took."""

    answer: GenerateAnswer
    num_generated: int


async def collected(jobs: Sequence[GenerateJob], generations: Generations) -> list[Outcome]:
    """What came of each job."""
    results = [job.empty_result() for job in jobs]
    async with aclosing(generations.arrivals()) as arrivals:
        async for position, delta in arrivals:
            results[position].add(delta)
    return await rendered(
        lambda: [_outcome(job, result) for job, result in zip(jobs, results, strict=True)], results
    )


def _outcome(job: GenerateJob, result: RequestOutput) -> Outcome:
    best, *others = sorted(result.outputs, key=attrgetter("mean_logprob"), reverse=True)
    answer = GenerateAnswer(
        generated_text=job.prefix + best.text,
        details=_details(job, result, best, others) if job.parameters.reports_details else UNSET,
    )
    return Outcome(answer, len(best.token_ids))


def _details(
    job: GenerateJob,
    result: RequestOutput,
    best: CompletionOutput,
    others: Sequence[CompletionOutput],
) -> GenerateDetails:
    prefill: list[PrefillToken] = []
    if result.prompt_logprobs is not None:
        prefill = prefill_tokens(job.prompt_token_ids, result.prompt_logprobs, job.tokenizer)
    tokens, top_tokens = _tokens(job, best)
    return GenerateDetails(
        finish_reason=end_reason(best.finish_reason, best.stop_reason),
        generated_tokens=len(best.token_ids),
        seed=job.seed,
        prefill=prefill,
        tokens=tokens,
        best_of_sequences=[_other(job, each, prefill) for each in others] or UNSET,
        top_tokens=top_tokens,
    )


def _other(
    job: GenerateJob, output: CompletionOutput, prefill: list[PrefillToken]
) -> BestOfSequence:
    tokens, top_tokens = _tokens(job, output)
    return BestOfSequence(
        generated_text=job.prefix + output.text,
        finish_reason=end_reason(output.finish_reason, output.stop_reason),
        generated_tokens=len(output.token_ids),
        seed=job.seed,
        prefill=prefill,
        tokens=tokens,
        top_tokens=top_tokens,
    )


def _tokens(
    job: GenerateJob, output: CompletionOutput
) -> tuple[list[GeneratedToken], list[list[GeneratedToken]] | UnsetType]:
    """A completion's tokens, and where asked for those that might stand in their places."""
    report, entries = job.report(), output.logprobs or []
    tokens = [report.token(entry) for entry in entries]
    return tokens, [report.top(entry) for entry in entries] if job.num_top else UNSET
