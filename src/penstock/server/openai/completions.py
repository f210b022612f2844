"""POST /v1/completions."""

import time
import uuid
from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.decoding import parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.openai.beam_answer import check_beam_options, searched
from penstock.server.openai.bodies import CompletionBody, decode_body
from penstock.server.openai.completion_answer import (
    Completion,
    CompletionJob,
    completion_document,
    completion_events,
    completion_json,
)
from penstock.server.openai.job import submitted
from penstock.server.openai.prompts import prompts_of, truncated
from penstock.server.prompts import fitted
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams

MOST_REPEATED_BYTES = 64 * 1024 * 1024
"""Of prompts, all the times together that one answer tells them."""


async def create(
    front: Front, request: Request, *, defaults: dict[str, Any] | None = None
) -> Response:
    """Continues one or several texts."""
    values = parse_object(await request.body())
    echo_only = _asks_for_no_token(values)
    if echo_only:
        values["max_tokens"] = 1
    defaults = {**front.llm.sampling_defaults, **(defaults or {})}
    body, params = decode_body(values, CompletionBody, defaults)
    front.check_model(body.model)
    is_given = values.get("max_tokens") is not None
    job = await _understood(front, body, params, max_tokens_given=is_given, echo_only=echo_only)
    check_beam_options(body, job.params, values)
    _check_repeated(job)
    if body.use_beam_search:
        _check_no_echo(body)
        width, render = body.best_of or job.n, partial(completion_json, job)
        return searched(front, request, body, job, width=width, n=job.n, render=render)
    return submitted(
        front,
        request,
        body,
        job,
        whole=partial(completion_document, job),
        events=partial(completion_events, job),
    )


def _asks_for_no_token(values: dict[str, Any]) -> bool:
    """Whether the client wants only the log probabilities of a text, as evaluations do."""
    max_tokens = values.get("max_tokens")
    return values.get("echo") is True and type(max_tokens) is int and max_tokens == 0


async def _understood(
    front: Front,
    body: CompletionBody,
    params: SamplingParams,
    *,
    max_tokens_given: bool,
    echo_only: bool,
) -> CompletionJob:
    given = await prompts_of(
        body.prompt,
        front.llm.tokenizer,
        field="prompt",
        max_prompts=front.settings.max_prompts,
        add_special_tokens=body.add_special_tokens,
    )
    prompts = truncated(given, body.truncate_prompt_tokens, front.llm, max_tokens=params.max_tokens)
    params = fitted(params, prompts, front.llm, field="prompt", is_given=max_tokens_given)
    drawn = _best_of(body, params)
    return CompletionJob(
        id=f"cmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=front.model_name,
        prompts=prompts,
        params=_with_prompt_logprobs(drawn, params.logprobs) if body.echo else drawn,
        tokenizer=front.llm.tokenizer,
        usage_events=body.usage_events,
        returns_token_ids=body.return_token_ids,
        tokens_as_ids=body.return_tokens_as_token_ids,
        n=params.n,
        echo=body.echo,
        echo_only=echo_only,
        reports_logprobs=params.logprobs is not None,
        reports_prompt_logprobs=params.prompt_logprobs is not None,
    )


def _check_repeated(job: CompletionJob) -> None:
    """Whatever is told of a prompt is told with each of its completions: a small request could have
    an answer that fills the memory.
    """
    num_tokens = sum(len(prompt.token_ids) for prompt in job.prompts)
    num_bytes = 8 * num_tokens if job.returns_token_ids else 0
    if job.echo:
        num_bytes += sum(
            4 * len(each.token_ids) if each.text is None else len(each.text) for each in job.prompts
        )
    if job.n * num_bytes > MOST_REPEATED_BYTES:
        raise InvalidRequest(
            f"The answer would tell about {num_bytes} bytes of prompts {job.n} times.",
            param="n",
            remedy="Ask for fewer completions, or without echo and return_token_ids.",
        )


def _check_no_echo(body: CompletionBody) -> None:
    if body.echo:
        raise InvalidRequest("echo cannot be combined with use_beam_search.", param="echo")


def _best_of(body: CompletionBody, params: SamplingParams) -> SamplingParams:
    """`params` under which `best_of` completions are drawn, and can be compared."""
    if body.best_of is None or body.best_of == params.n:
        return params
    if body.best_of < params.n:
        raise InvalidRequest(
            f"best_of ({body.best_of}) is less than n ({params.n}).", param="best_of"
        )
    if body.stream:
        raise InvalidRequest(
            "best_of cannot be streamed: the best is known at the end.", param="best_of"
        )
    if body.use_beam_search:
        return params  # that many beams; they are compared otherwise
    return msgspec.structs.replace(params, n=body.best_of, logprobs=params.logprobs or 0)


def _with_prompt_logprobs(params: SamplingParams, num_top: int | None) -> SamplingParams:
    """An echoed prompt shows its log probabilities as the completion does."""
    if num_top is None:
        return params
    return msgspec.structs.replace(
        params, prompt_logprobs=max(num_top, params.prompt_logprobs or 0)
    )


CREATE_COMPLETION = Endpoint(
    "POST",
    "/v1/completions",
    create,
    body=CompletionBody,
    answer=Completion,
    streams=True,
    refused_early=True,
)
