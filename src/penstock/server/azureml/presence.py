"""What Azure's platform asks of a container beside answers: its health, its model, its routes."""

from typing import Any

import msgspec
from fastapi import Request, Response

from penstock.server.answers import json_answer
from penstock.server.azureml.wording import AZURE_WORDING
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.vocabulary.errors import Unavailable

_MODEL_TYPES = {"text-generation": "text_generation", "chat-completion": "chat_completion"}


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model, as the model inference API tells it."""

    model_name: str
    model_type: str
    model_provider_name: str


async def show_health(front: Front, request: Request) -> Response:
    """Says Healthy, which is what both probes of a managed endpoint ask."""
    front.check_open()
    if not front.llm.is_ready:
        raise Unavailable("No engine is running, or its loop stands still.")
    return Response("Healthy", media_type="text/plain")


async def show_info(front: Front, request: Request) -> Response:
    """Describes the model."""
    task = front.settings.azureml_task
    if not task:
        has_chat = front.llm.tokenizer.chat_template_source is not None
        task = "chat-completion" if has_chat else "text-generation"
    info = ModelInfo(
        model_name=front.model_name,
        model_type=_MODEL_TYPES[task],
        model_provider_name=front.settings.model_provider,
    )
    return json_answer(info)


async def show_swagger(front: Front, request: Request) -> Response:
    """Describes all routes, as /openapi.json does."""
    return json_answer(request.app.openapi())


SHOW_HEALTH = Endpoint(
    "GET", "/", show_health, media_type="text/plain", wording=AZURE_WORDING, open=True
)
SHOW_INFO = Endpoint("GET", "/info", show_info, answer=ModelInfo, wording=AZURE_WORDING)
SHOW_SWAGGER = Endpoint(
    "GET", "/swagger.json", show_swagger, answer=dict[str, Any], wording=AZURE_WORDING
)
