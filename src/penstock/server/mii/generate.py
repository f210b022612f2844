"""POST /mii/{deployment} and GET /terminate, MII's REST gateway, and POST /generate, its
text-generation server.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from fastapi import Request
from fastapi import Response as HttpResponse
from msgspec import Meta

from penstock.server.admin import Draining, drain
from penstock.server.answers import EventStream, WholeAnswer
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.mii.job import understood
from penstock.server.mii.parameters import GenerateParams
from penstock.server.mii.response import Response
from penstock.server.sse import DONE, json_part


class DeploymentBody(GenerateParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompts, and how to continue them."""

    prompts: Annotated[str | list[str], Meta(description="A text, or a list of texts.")]


class TextBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prompts, and how to continue them, by the other names of MII's text-generation server."""

    prompt: Annotated[str | list[str], Meta(description="A text, or a list of texts.")]
    max_tokens: Annotated[int, Meta(ge=1, description="Most tokens of the continuation.")] = 128
    min_tokens: Annotated[
        int, Meta(ge=0, description="The text does not end before this many tokens.")
    ] = 0
    max_length: Annotated[
        int, Meta(ge=1, description="Most tokens of prompt and continuation together.")
    ] = 32768
    temperature: Annotated[float, Meta(gt=0, description="Divides the logits.")] = 0.7
    top_p: Annotated[
        float,
        Meta(gt=0, le=1, description="Keep the likeliest tokens whose probabilities sum to this."),
    ] = 0.9
    top_k: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Keep only the k likeliest tokens; null keeps all."),
    ] = None
    stop: Annotated[
        list[str] | str,
        Meta(description="The text ends before any of these, however many tokens they take."),
    ] = []
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False

    def options(self) -> GenerateParams:
        """The same in the names that MII has elsewhere."""
        return GenerateParams(
            max_new_tokens=self.max_tokens,
            min_new_tokens=self.min_tokens,
            max_length=self.max_length,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=self.stop,
            stream=self.stream,
        )


class Texts(msgspec.Struct, frozen=True):
    """The continuations, in the order of the prompts."""

    text: list[str]


async def ask_deployment(front: Front, request: Request) -> HttpResponse:
    """Continues prompts, as MII's REST gateway does; the deployment is the served model's name."""
    front.check_model(request.path_params["deployment"])
    body = converted(parse_object(await request.body()), DeploymentBody)
    job = await understood(front, body.prompts, body, field="prompts")
    generations = job.submit(front, request)

    async def whole(generations: Generations) -> bytes:
        return msgspec.json.encode(await job.responses(generations))

    async def events(generations: Generations) -> AsyncGenerator[bytes]:
        async with aclosing(job.streamed(generations)) as responses:
            async for response in responses:
                yield b"data: " + json_part([response]) + b"\n\n"

    if body.stream:
        return EventStream(front, generations, events)
    return WholeAnswer(front, generations, whole)


async def generate(front: Front, request: Request) -> HttpResponse:
    """Continues prompts, as MII's text-generation server does."""
    body = converted(parse_object(await request.body()), TextBody)
    job = await understood(front, body.prompt, body.options(), field="prompt")
    generations = job.submit(front, request)

    async def whole(generations: Generations) -> bytes:
        responses = await job.responses(generations)
        return msgspec.json.encode(Texts([response.generated_text for response in responses]))

    async def events(generations: Generations) -> AsyncGenerator[bytes]:
        async with aclosing(job.streamed(generations)) as responses:
            async for response in responses:
                yield b"data: " + json_part(Texts([response.generated_text])) + b"\n\n"
        yield DONE

    if body.stream:
        return EventStream(front, generations, events)
    return WholeAnswer(front, generations, whole)


TERMINATE = Endpoint("GET", "/terminate", drain, answer=Draining, admin=True)
ASK_DEPLOYMENT = Endpoint(
    "POST",
    "/mii/{deployment:path}",
    ask_deployment,
    body=DeploymentBody,
    answer=list[Response],
    streams=True,
)
GENERATE = Endpoint(
    "POST",
    "/generate",
    generate,
    body=TextBody,
    answer=Texts,
    streams=True,
    told_by="prompt",
    refused_early=True,
)
