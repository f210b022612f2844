"""GET /v1/models and /v1/models/{model}."""

from typing import Literal

import msgspec
from fastapi import Request, Response

from penstock.server.answers import json_answer
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front

EMBEDDINGS = (
    "The mean of the last hidden states, of length 1. This model generates text; it was not "
    "trained to embed."
)


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model served here. `max_model_len` is its context, prompt and completion together.

    `embeddings` says what /v1/embeddings makes its vectors of, `embedding_size` how long they are.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "penstock"
    max_model_len: int
    embeddings: str = EMBEDDINGS
    embedding_size: int


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All models served here: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


async def list_all(front: Front, request: Request) -> Response:
    """Lists the served models."""
    return json_answer(ModelList(data=[_card(front)]))


async def show(front: Front, request: Request) -> Response:
    """Describes one served model."""
    front.check_model(request.path_params["model"])
    return json_answer(_card(front))


def _card(front: Front) -> ModelCard:
    return ModelCard(
        id=front.model_name,
        created=front.started_at,
        max_model_len=front.llm.max_model_len,
        embedding_size=front.llm.embedding_size,
    )


LIST_MODELS = Endpoint("GET", "/v1/models", list_all, answer=ModelList)
SHOW_MODEL = Endpoint("GET", "/v1/models/{model:path}", show, answer=ModelCard)
