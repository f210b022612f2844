"""POST /v1/chat/completions."""

import time
import uuid
from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.openai.bodies import ChatBody, decode_body, parse_object
from penstock.server.openai.chat_answer import ChatCompletion, chat_document, chat_events
from penstock.server.openai.job import Job, submitted
from penstock.server.openai.prompts import chat_prompt, fitted
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams


async def create(front: Front, request: Request) -> Response:
    """Continues a conversation."""
    values = parse_object(await request.body())
    defaults = {"max_tokens": front.llm.max_model_len, **front.llm.sampling_defaults}
    body, params = decode_body(values, ChatBody, defaults)
    front.check_model(body.model)
    params = _with_chat_options(params, body, values)
    prompts = [await chat_prompt(body, front.llm.tokenizer)]
    is_given = values.get("max_tokens") is not None or body.max_completion_tokens is not None
    job = Job(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=front.model_name,
        prompts=prompts,
        params=fitted(params, prompts, front.llm, field="messages", is_given=is_given),
        tokenizer=front.llm.tokenizer,
        include_usage=body.include_usage,
    )
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
    "POST", "/v1/chat/completions", create, body=ChatBody, answer=ChatCompletion, streams=True
)
