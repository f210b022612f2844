"""POST /v1/embeddings."""

import sys
import uuid
from array import array
from base64 import b64encode
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.answers import WholeAnswer
from penstock.server.auth import salt_of
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.openai.bodies import (
    AddSpecialTokens,
    ModelName,
    Priority,
    Texts,
    Truncation,
)
from penstock.server.openai.fields import drop_foreign
from penstock.server.openai.prompts import prompts_of, truncated
from penstock.server.prompts import Prompt
from penstock.server.visit import visit_of
from penstock.vocabulary.errors import ContextTooLong, InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/embeddings."""

    input: Texts
    model: ModelName = None
    encoding_format: Annotated[
        Literal["float", "base64"],
        Meta(description="Numbers, or the bytes of little-endian 32-bit floats in Base64."),
    ] = "float"
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Only as many as the vectors have: these cannot be shortened."),
    ] = None
    priority: Priority = 0
    truncate_prompt_tokens: Truncation = None
    add_special_tokens: AddSpecialTokens = True


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of one text, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


async def create(front: Front, request: Request) -> Response:
    """Makes a vector of each text: the mean of the model's last hidden states, of length 1."""
    body = converted(drop_foreign(parse_object(await request.body())), EmbeddingBody)
    front.check_model(body.model)
    _check_dimensions(body.dimensions, front.llm.embedding_size)
    prompts = await _prompts(front, body)
    generations = Generations(
        front, f"embd-{uuid.uuid4().hex}", visit=visit_of(request.scope)
    ).submit(
        [prompt.token_ids for prompt in prompts],
        SamplingParams(),
        priority=body.priority,
        salt=salt_of(request.scope),
        embeds=True,
    )
    return WholeAnswer(front, generations, partial(_document, front, body, prompts))


async def _prompts(front: Front, body: EmbeddingBody) -> list[Prompt]:
    """The texts, none longer than the context."""
    given = await prompts_of(
        body.input,
        front.llm.tokenizer,
        field="input",
        max_prompts=front.settings.max_prompts,
        add_special_tokens=body.add_special_tokens,
    )
    prompts = truncated(given, body.truncate_prompt_tokens, front.llm, max_tokens=0)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    if longest > front.llm.max_model_len:
        error = ContextTooLong(longest, 0, front.llm.max_model_len)
        error.param = "input"
        raise error
    return prompts


def _check_dimensions(asked: int | None, size: int) -> None:
    if asked not in (None, size):
        raise InvalidRequest(
            f"The vectors of this model have {size} dimensions and cannot be cut to {asked}.",
            param="dimensions",
            remedy="Leave it out.",
        )


async def _document(
    front: Front, body: EmbeddingBody, prompts: list[Prompt], generations: Generations
) -> bytes:
    vectors: dict[int, list[float]] = {}
    async with aclosing(generations.arrivals()) as arrivals:
        async for position, delta in arrivals:
            vectors[position] = delta.embedding
    encoded = _in_base64 if body.encoding_format == "base64" else _as_numbers
    num_tokens = sum(len(prompt.token_ids) for prompt in prompts)
    return msgspec.json.encode(
        Embeddings(
            data=[
                Embedding(index=index, embedding=encoded(vectors[index]))
                for index in range(len(prompts))
            ],
            model=front.model_name,
            usage=EmbeddingUsage(num_tokens, num_tokens),
        )
    )


def _as_numbers(vector: list[float]) -> Any:
    return vector


def _in_base64(vector: list[float]) -> Any:
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return b64encode(floats.tobytes()).decode()


CREATE_EMBEDDING = Endpoint(
    "POST",
    "/v1/embeddings",
    create,
    body=EmbeddingBody,
    answer=Embeddings,
    refused_early=True,
)
