"""POST /v1/messages and /v1/messages/count_tokens."""

from functools import partial

import msgspec
from fastapi import Request, Response

from penstock.server.answers import json_answer
from penstock.server.anthropic.answer import MessageAnswer, MessageJob, message_document
from penstock.server.anthropic.bodies import ConversationBody, MessagesBody
from penstock.server.anthropic.conversation import as_chat
from penstock.server.anthropic.events import message_events
from penstock.server.anthropic.wording import ANTHROPIC_WORDING
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.openai.bodies import ChatBody
from penstock.server.openai.chat_job import ChatJob, understood
from penstock.server.openai.job import submitted
from penstock.server.openai.tokenization import conversation_ids
from penstock.vocabulary.errors import ContextTooLong, InvalidRequest
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.sampling_params import SamplingParams, sampling_params_from


class TokenCount(msgspec.Struct, frozen=True):
    """How many tokens the model would read."""

    input_tokens: int


async def create(front: Front, request: Request) -> Response:
    """Continues a conversation, in Anthropic's terms."""
    body = converted(parse_object(await request.body()), MessagesBody)
    front.check_model(body.model)
    chat = as_chat(body, stream=body.stream)
    chat_job = await _understood(front, chat, _params(front, body))
    job = MessageJob(chat_job, is_cut=(chat_job.params.max_tokens or 0) < body.max_tokens)
    return submitted(
        front,
        request,
        chat,
        chat_job,
        whole=partial(message_document, job),
        events=partial(message_events, job),
    )


async def _understood(front: Front, chat: ChatBody, params: SamplingParams) -> ChatJob:
    try:
        return await understood(front, chat, params, id_prefix="msg_", max_tokens_given=False)
    except ContextTooLong as error:  # in the words by which Anthropic's clients know it
        raise InvalidRequest(
            f"prompt is too long: {error.prompt_len} tokens > {error.max_model_len - 1} maximum",
            param="messages",
        ) from None


def _params(front: Front, body: MessagesBody) -> SamplingParams:
    asked = {
        "max_tokens": body.max_tokens,
        "stop": body.stop_sequences,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    params = sampling_params_from({**front.llm.sampling_defaults, **given}, also_known=[])
    if body.output_config is None or body.output_config.format is None:
        return params
    grammar = Grammar.json_schema(body.output_config.format.schema, param="output_config.format")
    return msgspec.structs.replace(params, grammar=grammar)


async def count_tokens(front: Front, request: Request) -> Response:
    """Counts the tokens of a conversation, in Anthropic's terms."""
    body = converted(parse_object(await request.body()), ConversationBody)
    front.check_model(body.model)
    return json_answer(TokenCount(len(await conversation_ids(front, as_chat(body)))))


CREATE_MESSAGE = Endpoint(
    "POST",
    "/v1/messages",
    create,
    body=MessagesBody,
    answer=MessageAnswer,
    streams=True,
    wording=ANTHROPIC_WORDING,
    refused_early=True,
)
COUNT_TOKENS = Endpoint(
    "POST",
    "/v1/messages/count_tokens",
    count_tokens,
    body=ConversationBody,
    answer=TokenCount,
    wording=ANTHROPIC_WORDING,
)
