"""POST /generate and /generate_stream, and TGI's older door, POST /, where a list answers.

SageMaker's /invocations is that door again, and OpenAI's two beside it: the body tells them apart.
"""

from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.answers import EventStream, WholeAnswer
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.openai import chat_completions, completions
from penstock.server.tgi.answer import GenerateAnswer, collected
from penstock.server.tgi.job import GenerateJob, submitted, understood
from penstock.server.tgi.parameters import GenerateParameters
from penstock.server.tgi.stream import StreamEvent, stream_events
from penstock.server.tgi.timings import Timings
from penstock.server.tgi.wording import TGI_WORDING
from penstock.vocabulary.errors import InvalidRequest

# Without any parameters TGI samples; with some, it samples only if these say so.
_NO_PARAMETERS = GenerateParameters(do_sample=True)


class GenerateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text to continue."""

    inputs: Annotated[str, Meta(description="The text to continue.")]
    parameters: Annotated[
        GenerateParameters, Meta(description="How; without any, by sampling at temperature 1.")
    ] = _NO_PARAMETERS
    stream: Annotated[
        bool | None, Meta(description="At / and /invocations: answer with server-sent events.")
    ] = None


async def generate(front: Front, request: Request) -> Response:
    """Continues a text."""
    return await _whole(front, request, await _body(request, stream=False), is_listed=False)


async def generate_stream(front: Front, request: Request) -> Response:
    """Continues a text, with an event per token."""
    return await _streamed(front, request, await _body(request, stream=True))


async def generate_either(front: Front, request: Request) -> Response:
    """Continues a text, with a list of one answer or with events."""
    body = await _body(request)
    if body.parameters.return_full_text is None:
        parameters = msgspec.structs.replace(body.parameters, return_full_text=True)
        body = msgspec.structs.replace(body, parameters=parameters)
    if body.stream:
        return await _streamed(front, request, body)
    return await _whole(front, request, body, is_listed=True)


async def _body(request: Request, *, stream: bool | None = None) -> GenerateBody:
    body = converted(parse_object(await request.body()), GenerateBody)
    if stream is not None and body.stream not in (None, stream):
        other = "/generate" if stream else "/generate_stream"
        raise InvalidRequest(f"`stream` is decided by the path: ask at {other}", param="stream")
    return body


async def _whole(
    front: Front, request: Request, body: GenerateBody, *, is_listed: bool
) -> Response:
    job = await understood(front, body.inputs, body.parameters, stream=False)
    generations = submitted(front, request, job)
    document = partial(_document, job, Timings(request, job), is_listed)
    return WholeAnswer(front, generations, document)


async def _document(
    job: GenerateJob, timings: Timings, is_listed: bool, generations: Generations
) -> Response:
    [(answer, num_generated)] = await collected([job], generations)
    return Response(
        msgspec.json.encode([answer] if is_listed else answer),
        headers=timings.headers(num_generated),
        media_type="application/json",
    )


async def _streamed(front: Front, request: Request, body: GenerateBody) -> Response:
    job = await understood(front, body.inputs, body.parameters, stream=True)
    stream = EventStream(front, submitted(front, request, job), partial(stream_events, job))
    stream.headers.update(Timings(request, job).early_headers())
    return stream


GENERATE = Endpoint(
    "POST",
    "/generate",
    generate,
    body=GenerateBody,
    answer=GenerateAnswer,
    wording=TGI_WORDING,
    refused_early=True,
)
GENERATE_STREAM = Endpoint(
    "POST",
    "/generate_stream",
    generate_stream,
    body=GenerateBody,
    answer=StreamEvent,
    streams=True,
    media_type="text/event-stream",
    wording=TGI_WORDING,
    refused_early=True,
)
GENERATE_EITHER = Endpoint(
    "POST",
    "/",
    generate_either,
    body=GenerateBody,
    answer=list[GenerateAnswer],
    streams=True,
    wording=TGI_WORDING,
    refused_early=True,
)
INVOKE = replace(GENERATE_EITHER, path="/invocations")
INVOKE_CHAT = replace(
    chat_completions.CREATE_CHAT_COMPLETION,
    path="/invocations",
    wording=TGI_WORDING,
    told_by="messages",
)
INVOKE_COMPLETION = replace(
    completions.CREATE_COMPLETION, path="/invocations", wording=TGI_WORDING, told_by="prompt"
)
