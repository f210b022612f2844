"""POST /v1/responses."""

from functools import partial
from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.exchange import request_id_of
from penstock.server.front import Front
from penstock.server.openai.chat_job import understood
from penstock.server.openai.job import submitted
from penstock.server.openai.response_answer import (
    Responding,
    ResponseDocument,
    response_document,
    response_events,
)
from penstock.server.openai.response_body import ResponsesBody, ResponseSchemaFormat, own_fields
from penstock.server.openai.response_input import as_chat
from penstock.server.openai.structured import JsonObjectFormat
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.sampling_params import SamplingParams, sampling_params_from


async def create(front: Front, request: Request) -> Response:
    """Continues a conversation of items. Nothing is stored."""
    body = converted(own_fields(parse_object(await request.body())), ResponsesBody)
    front.check_model(body.model)
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "stream_options is only allowed when stream is true.", param="stream_options"
        )
    chat = as_chat(body)
    job = await understood(
        front,
        chat,
        _params(front, body),
        id_prefix="resp_",
        max_tokens_given=body.max_output_tokens is not None,
    )
    answer = Responding(body, job)
    request_id = request_id_of(request.scope)
    return submitted(
        front,
        request,
        chat,
        job,
        whole=partial(response_document, answer),
        events=partial(response_events, answer, request_id=request_id),
    )


def _params(front: Front, body: ResponsesBody) -> SamplingParams:
    wants_logprobs = body.top_logprobs or "message.output_text.logprobs" in body.include
    asked: dict[str, Any] = {
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.top_logprobs if wants_logprobs else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    defaults = {"max_tokens": front.llm.max_model_len, **front.llm.sampling_defaults}
    params = sampling_params_from({**defaults, **given}, also_known=[])
    grammar = _grammar(body)
    return params if grammar is None else msgspec.structs.replace(params, grammar=grammar)


def _grammar(body: ResponsesBody) -> Grammar | None:
    match body.text.format:
        case JsonObjectFormat():
            return Grammar.json_object(param="text.format")
        case ResponseSchemaFormat(schema=schema):
            return Grammar.json_schema(schema, param="text.format")
    return None


CREATE_RESPONSE = Endpoint(
    "POST",
    "/v1/responses",
    create,
    body=ResponsesBody,
    answer=ResponseDocument,
    streams=True,
    refused_early=True,
)
