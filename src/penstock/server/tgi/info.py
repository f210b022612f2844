"""GET /info, /ping and /."""

from dataclasses import replace

import msgspec
from fastapi import Request, Response

import penstock
from penstock.server.answers import json_answer
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.health import HEALTH
from penstock.server.tgi.job import max_input_tokens
from penstock.server.tgi.wording import TGI_WORDING


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The model and the limits. What this server has no notion of is null."""

    model_id: str
    model_sha: str | None = None
    model_pipeline_tag: str = "text-generation"
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 1
    max_client_batch_size: int
    router: str = "penstock"
    version: str = penstock.__version__
    sha: str | None = None
    docker_label: str | None = None


async def show(front: Front, request: Request) -> Response:
    """Describes the served model and the limits of requests."""
    settings = front.settings
    info = ServerInfo(
        model_id=front.model_name,
        max_concurrent_requests=front.llm.max_in_flight,
        max_best_of=settings.max_best_of,
        max_stop_sequences=settings.max_stop_sequences,
        max_input_tokens=max_input_tokens(front),
        max_total_tokens=front.llm.max_model_len,
        max_client_batch_size=settings.max_client_batch_size,
    )
    return json_answer(info)


SHOW_INFO = Endpoint("GET", "/info", show, answer=ServerInfo, wording=TGI_WORDING)
PING = replace(HEALTH, path="/ping", wording=TGI_WORDING)
ROOT = replace(
    PING, path="/", told_by="inputs"
)  # nothing tells it: another dialect's page is first
