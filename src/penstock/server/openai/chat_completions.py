"""POST /v1/chat/completions."""

from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.decoding import parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.openai.beam_answer import check_beam_options, searched
from penstock.server.openai.bodies import ChatBody, decode_body
from penstock.server.openai.chat_answer import ChatCompletion, chat_document, chat_json
from penstock.server.openai.chat_events import chat_events
from penstock.server.openai.chat_job import understood
from penstock.server.openai.job import submitted
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams


async def create(
    front: Front, request: Request, *, defaults: dict[str, Any] | None = None
) -> Response:
    """Continues a conversation."""
    values = parse_object(await request.body())
    models = {"max_tokens": front.llm.max_model_len, **front.llm.sampling_defaults}
    defaults = {**models, **(defaults or {})}
    body, params = decode_body(values, ChatBody, defaults)
    front.check_model(body.model)
    params = _with_chat_options(params, body, values)
    is_given = values.get("max_tokens") is not None or body.max_completion_tokens is not None
    job = await understood(front, body, params, id_prefix="chatcmpl-", max_tokens_given=is_given)
    check_beam_options(body, job.params, values)
    if body.use_beam_search:
        n = job.params.n
        return searched(front, request, body, job, width=n, n=n, render=partial(chat_json, job))
    return submitted(
        front,
        request,
        body,
        job,
        whole=partial(chat_document, job),
        events=partial(chat_events, job),
    )


def _with_chat_options(
    params: SamplingParams, body: ChatBody, values: dict[str, Any]
) -> SamplingParams:
    """The options that chat names otherwise than the rest of the world."""
    changes: dict[str, Any] = {}
    if body.max_completion_tokens is not None:
        if values.get("max_tokens") not in (None, body.max_completion_tokens):
            raise InvalidRequest(
                "max_tokens and max_completion_tokens differ.",
                param="max_tokens",
                remedy="Give one of them.",
            )
        changes["max_tokens"] = body.max_completion_tokens
    if body.logprobs:
        changes["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    return msgspec.structs.replace(params, **changes) if changes else params


CREATE_CHAT_COMPLETION = Endpoint(
    "POST",
    "/v1/chat/completions",
    create,
    body=ChatBody,
    answer=ChatCompletion,
    streams=True,
    refused_early=True,
)
