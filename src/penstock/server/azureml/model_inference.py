"""Azure's model inference API and OpenAI's, behind the task of the deployment and content safety.

The endpoints of the dialect `openai` do the work. Here stands what comes before and after: Azure's
defaults, its header `extra-parameters`, and who may see which text.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import Message, Receive, Scope, Send

from penstock.server.azureml.score import blocked, check_task
from penstock.server.azureml.wording import AZURE_WORDING, EXTRA_PARAMETERS
from penstock.server.content_safety import ContentSafety, texts_in
from penstock.server.decoding import parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.front import Front
from penstock.server.openai import chat_completions, completions
from penstock.vocabulary.errors import InvalidRequest

DEFAULTS = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 256}
"""Of Azure's own images, under Azure's own paths."""

API_FIELDS = {
    "frequency_penalty",
    "max_tokens",
    "messages",
    "modalities",
    "model",
    "presence_penalty",
    "prompt",
    "response_format",
    "seed",
    "stop",
    "stream",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
}
"""What Azure's API names. Any other field is an extra parameter."""

_HANDLINGS = ("error", "drop", "pass-through")
_UNSEEN = ("finish_reason", "id", "index", "role", "type")
"""Fields of a choice that no model writes."""


@dataclass(frozen=True)
class Door:
    """One path. `extra` is what becomes of extra parameters unless the header says otherwise."""

    task: str
    create: Callable[..., Awaitable[Response]]
    defaults: dict[str, Any]
    extra: str

    async def answer(self, front: Front, request: Request) -> Response:
        """Continues texts or a conversation, if the task and content safety let it."""
        check_task(self.task, deployed_for=front.settings.azureml_task)
        values = parse_object(await request.body())
        values = _without_extra(values, request.headers.get("extra-parameters", self.extra))
        safety = front.content_safety
        if safety is not None:
            await _check_safe(values, safety)
        request = _with_body(request, values)
        response = await self.create(front, request, defaults=self.defaults)
        return response if safety is None else SafeAnswer(response, safety)


class SafeAnswer(Response):
    """Sends another answer once content safety has seen all of it, or says that it was stopped."""

    def __init__(self, answer: Response, safety: ContentSafety) -> None:
        super().__init__()
        self._answer = answer
        self._safety = safety

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._answer(scope, receive, keep)
        body = b"".join(message.get("body", b"") for message in messages)
        if not all(await self._safety.passing(_written_in(body), "output")):
            raise blocked("answer")
        for message in messages:
            await send(message)


def _written_in(body: bytes) -> set[str]:
    """What the model wrote in a whole answer."""
    choices = msgspec.json.decode(body)["choices"]
    seen = [
        {name: value for name, value in part.items() if name not in _UNSEEN}
        for choice in choices
        for part in ({**choice, "message": {}}, choice.get("message", {}))
    ]
    return texts_in(seen)


def _without_extra(values: dict[str, Any], handling: str) -> dict[str, Any]:
    if handling not in _HANDLINGS:
        raise HttpError(
            400,
            f"extra-parameters is {handling!r}; it may be {', '.join(_HANDLINGS)}.",
            code=EXTRA_PARAMETERS,
        )
    extra = values.keys() - API_FIELDS
    if not extra or handling == "pass-through":
        return values
    if handling == "error":
        raise HttpError(
            400,
            f"Azure's API does not name {', '.join(sorted(extra))}. Send the header "
            "extra-parameters: pass-through to ask the model, or drop.",
            param=min(extra),
            code=EXTRA_PARAMETERS,
        )
    return {name: value for name, value in values.items() if name in API_FIELDS}


async def _check_safe(values: dict[str, Any], safety: ContentSafety) -> None:
    if values.get("stream"):
        raise InvalidRequest(
            "stream: content safety is on, and sees whole answers only.", param="stream"
        )
    prompt = values.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(each, str) for each in prompt):
        raise InvalidRequest(
            "prompt: content safety is on, and reads texts only, no token ids.", param="prompt"
        )
    if not all(await safety.passing(texts_in(values), "input")):
        raise blocked("request")


def _with_body(request: Request, values: dict[str, Any]) -> Request:
    """The same request with another body."""
    body = msgspec.json.encode(values)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _azures(endpoint: Endpoint, path: str, task: str) -> Endpoint:
    door = Door(task, endpoint.handler, DEFAULTS, "error")
    return replace(endpoint, path=path, handler=door.answer, wording=AZURE_WORDING)


def _openais(endpoint: Endpoint, task: str) -> Endpoint:
    door = Door(task, endpoint.handler, {}, "pass-through")
    return replace(endpoint, handler=door.answer)


MODEL_INFERENCE = (
    _azures(completions.CREATE_COMPLETION, "/completions", "text-generation"),
    _azures(chat_completions.CREATE_CHAT_COMPLETION, "/chat/completions", "chat-completion"),
    _openais(completions.CREATE_COMPLETION, "text-generation"),
    _openais(chat_completions.CREATE_CHAT_COMPLETION, "chat-completion"),
)
