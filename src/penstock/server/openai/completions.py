"""POST /v1/completions."""

import time
import uuid
from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.decoding import parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.openai.bodies import CompletionBody, decode_body
from penstock.server.openai.completion_answer import (
    Completion,
    CompletionJob,
    completion_document,
    completion_events,
)
from penstock.server.openai.job import submitted
from penstock.server.openai.prompts import completion_prompts
from penstock.server.prompts import fitted
from penstock.vocabulary.sampling_params import SamplingParams


async def create(front: Front, request: Request) -> Response:
    """Continues one or several texts."""
    values = parse_object(await request.body())
    echo_only = _asks_for_no_token(values)
    if echo_only:
        values["max_tokens"] = 1
    body, params = decode_body(values, CompletionBody, front.llm.sampling_defaults)
    front.check_model(body.model)
    _check_best_of(body, params)
    prompts = await completion_prompts(
        body, front.llm.tokenizer, max_prompts=front.settings.max_prompts
    )
    is_given = values.get("max_tokens") is not None
    params = fitted(params, prompts, front.llm, field="prompt", is_given=is_given)
    job = CompletionJob(
        id=f"cmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=front.model_name,
        prompts=prompts,
        params=_with_prompt_logprobs(params) if body.echo else params,
        tokenizer=front.llm.tokenizer,
        include_usage=body.include_usage,
        echo=body.echo,
        echo_only=echo_only,
        report_prompt_logprobs=params.prompt_logprobs is not None,
    )
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


def _check_best_of(body: CompletionBody, params: SamplingParams) -> None:
    if body.best_of not in (None, params.n):
        raise HttpError(
            400,
            f"best_of is not supported yet by this server, unless it equals n ({params.n}).",
            param="best_of",
            code="unsupported_parameter",
        )


def _with_prompt_logprobs(params: SamplingParams) -> SamplingParams:
    """An echoed prompt shows its log probabilities as the completion does."""
    if params.logprobs is None:
        return params
    return msgspec.structs.replace(
        params, prompt_logprobs=max(params.logprobs, params.prompt_logprobs or 0)
    )


CREATE_COMPLETION = Endpoint(
    "POST", "/v1/completions", create, body=CompletionBody, answer=Completion, streams=True
)
