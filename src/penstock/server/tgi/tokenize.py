"""POST /tokenize and /chat_tokenize: where in a text its tokens stand."""

from typing import Annotated

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.answers import json_answer
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.openai.bodies import ChatBody, decode_body
from penstock.server.openai.prompts import conversation
from penstock.server.openai.tools import offer
from penstock.server.prompts import off_loop_if_long
from penstock.server.tgi.wording import TEMPLATE_ERROR, TGI_WORDING
from penstock.text.detokenizer import Detokenizer
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest


class TokenizeInputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text."""

    inputs: Annotated[str, Meta(description="The text.")]


class SimpleToken(msgspec.Struct, frozen=True):
    """A token, and the characters of the text from `start` to before `stop` that it stands for."""

    id: int
    text: str
    start: int
    stop: int


class ChatTokenized(msgspec.Struct, frozen=True):
    """A conversation as the chat template writes it, and its tokens."""

    tokenize_response: list[SimpleToken]
    templated_text: str


async def tokenize(front: Front, request: Request) -> Response:
    """Tells the tokens of a text, and where they stand."""
    inputs = converted(parse_object(await request.body()), TokenizeInputs).inputs
    encode = front.llm.tokenizer.encode_with_offsets

    def told() -> Response:
        return json_answer(
            [
                SimpleToken(id_, inputs[start:stop], start, stop)
                for id_, (start, stop) in encode(inputs)
            ]
        )

    return await off_loop_if_long(told, len(inputs))


async def chat_tokenize(front: Front, request: Request) -> Response:
    """Tells a conversation as the chat template writes it, and its tokens.

    The body is that of a chat; whatever in it does not change the prompt is checked, and no more.
    """
    body, _ = decode_body(parse_object(await request.body()), ChatBody, {})
    front.check_model(body.model)
    offered = offer(body.tools, body.tool_choice, parallel=True, formats=front.formats)
    try:
        prompt = await conversation(body, offered.for_template(), front.llm.tokenizer)
    except InvalidRequest as error:
        raise HttpError(400, str(error), param=error.param, code=TEMPLATE_ERROR) from None
    text = prompt.text or ""

    def told() -> Response:
        return json_answer(ChatTokenized(_placed(prompt.token_ids, front.llm.tokenizer), text))

    return await off_loop_if_long(told, len(text))


def _placed(token_ids: list[int], tokenizer: Tokenizer) -> list[SimpleToken]:
    """Where tokens stand that are the whole of a text, its special tokens included."""
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=False)
    tokens, start = [], 0
    for id_ in token_ids:
        text = detokenizer.add([id_])
        tokens.append(SimpleToken(id_, text, start, start + len(text)))
        start += len(text)
    return tokens


TOKENIZE = Endpoint(
    "POST",
    "/tokenize",
    tokenize,
    body=TokenizeInputs,
    answer=list[SimpleToken],
    wording=TGI_WORDING,
    told_by="inputs",
)
CHAT_TOKENIZE = Endpoint(
    "POST",
    "/chat_tokenize",
    chat_tokenize,
    body=ChatBody,
    answer=ChatTokenized,
    wording=TGI_WORDING,
)
