"""POST /tokenize and /detokenize, as vLLM has them."""

from typing import Annotated

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.answers import json_answer
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.openai.bodies import (
    AddGenerationPrompt,
    ChatBody,
    ContinueFinalMessage,
    Messages,
    ModelName,
    TemplateVariables,
    TokenId,
    Tools,
)
from penstock.server.openai.logprobs import shown
from penstock.server.openai.prompts import conversation, known_ids
from penstock.server.openai.tools import offer
from penstock.server.prompts import off_loop_if_long
from penstock.vocabulary.errors import InvalidRequest


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either a text or a conversation."""

    model: ModelName = None
    prompt: Annotated[str | None, Meta(description="A text; or else give messages.")] = None
    messages: Messages | None = None
    tools: Tools = None
    chat_template_kwargs: TemplateVariables = None
    add_generation_prompt: AddGenerationPrompt = True
    continue_final_message: ContinueFinalMessage = False
    add_special_tokens: Annotated[
        bool | None,
        Meta(description="Add the tokenizer's special tokens; by default to a text only."),
    ] = None
    return_token_strs: Annotated[bool, Meta(description="Tell each token's text, too.")] = False


class Tokenized(msgspec.Struct, frozen=True, kw_only=True):
    """`count` tokens. `token_strs` is null unless it was asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token ids."""

    model: ModelName = None
    tokens: Annotated[list[TokenId], Meta(description="Token ids.")]


class Detokenized(msgspec.Struct, frozen=True):
    """The text of these tokens, special ones included."""

    prompt: str


async def tokenize(front: Front, request: Request) -> Response:
    """Tells the token ids of a text or a conversation."""
    body = converted(parse_object(await request.body()), TokenizeBody)
    front.check_model(body.model)
    token_ids = await _token_ids(front, body)
    tokenizer = front.llm.tokenizer

    def told() -> Response:
        strs = [shown(id_, tokenizer) for id_ in token_ids] if body.return_token_strs else None
        return json_answer(
            Tokenized(
                count=len(token_ids),
                max_model_len=front.llm.max_model_len,
                tokens=token_ids,
                token_strs=strs,
            )
        )

    return await off_loop_if_long(told, len(token_ids))


async def _token_ids(front: Front, body: TokenizeBody) -> list[int]:
    tokenizer, text = front.llm.tokenizer, body.prompt
    if (text is None) == (body.messages is None):
        raise InvalidRequest("Give either prompt or messages.", param="prompt")
    if text is not None:
        return await off_loop_if_long(
            lambda: tokenizer.encode(text, add_special_tokens=body.add_special_tokens is not False),
            len(text),
        )
    chat = ChatBody(
        messages=body.messages or [],
        tools=body.tools,
        chat_template_kwargs=body.chat_template_kwargs,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=bool(body.add_special_tokens),
    )
    return await conversation_ids(front, chat)


async def conversation_ids(front: Front, body: ChatBody) -> list[int]:
    """The token ids that the model would read of a conversation."""
    offered = offer(
        body.tools, body.tool_choice, parallel=body.parallel_tool_calls, formats=front.formats
    )
    prompt = await conversation(body, offered.for_template(), front.llm.tokenizer)
    return prompt.token_ids


async def detokenize(front: Front, request: Request) -> Response:
    """Tells the text of token ids."""
    body = converted(parse_object(await request.body()), DetokenizeBody)
    front.check_model(body.model)
    tokenizer = front.llm.tokenizer
    token_ids = known_ids(body.tokens, tokenizer, "tokens")
    text = await off_loop_if_long(
        lambda: tokenizer.decode(token_ids, skip_special_tokens=False), len(token_ids)
    )
    return json_answer(Detokenized(text))


TOKENIZE = Endpoint("POST", "/tokenize", tokenize, body=TokenizeBody, answer=Tokenized)
DETOKENIZE = Endpoint("POST", "/detokenize", detokenize, body=DetokenizeBody, answer=Detokenized)
