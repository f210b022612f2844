"""POST /vertex: several texts or conversations at once, as Google's Vertex AI sends them."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import msgspec
import msgspec.structs
from fastapi import Request, Response
from msgspec import Meta

from penstock.server.answers import WholeAnswer
from penstock.server.decoding import converted, parse_object
from penstock.server.endpoint import Endpoint
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.health import HEALTH
from penstock.server.openai.bodies import ChatBody, decode_body
from penstock.server.openai.prompts import conversation
from penstock.server.openai.structured import StructuredFields
from penstock.server.prompts import fitted
from penstock.server.settings import ServerSettings
from penstock.server.tgi.answer import collected
from penstock.server.tgi.job import GenerateJob, submitted, understood
from penstock.server.tgi.parameters import GenerateParameters
from penstock.server.tgi.wording import TGI_WORDING
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams

Instance = dict[str, Any]

_HONOURED = {
    "messages",
    "model",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    *StructuredFields.__struct_fields__,
}
"""Of a chat's own fields, those that count in an instance."""


class VertexBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to `--max-client-batch-size` instances."""

    instances: Annotated[
        list[Instance],
        Meta(
            min_length=1,
            description="Each is inputs and parameters, as for /generate but that sampling is the "
            "default, or messages and options, as for /v1/chat/completions.",
        ),
    ]


class TextInstance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text to continue."""

    inputs: str
    parameters: GenerateParameters | None = None


class VertexAnswer(msgspec.Struct, frozen=True):
    """A text for each instance."""

    predictions: list[str]


async def predict(front: Front, request: Request) -> Response:
    """Continues each of several texts or conversations."""
    body = converted(parse_object(await request.body()), VertexBody)
    most = front.settings.max_client_batch_size
    if len(body.instances) > most:
        raise InvalidRequest(
            f"Number of instances exceeds the maximum allowed batch size of {most}",
            param="instances",
        )
    jobs = [await _job(front, instance) for instance in body.instances]
    return WholeAnswer(front, submitted(front, request, *jobs), partial(_document, jobs))


async def _document(jobs: list[GenerateJob], generations: Generations) -> bytes:
    outcomes = await collected(jobs, generations)
    return msgspec.json.encode(VertexAnswer([each.answer.generated_text for each in outcomes]))


async def _job(front: Front, instance: Instance) -> GenerateJob:
    if "messages" in instance:
        return await _chat_job(front, instance)
    text = converted(instance, TextInstance)
    parameters = text.parameters or GenerateParameters()
    if parameters.do_sample is None:
        parameters = msgspec.structs.replace(parameters, do_sample=True)
    return await understood(front, text.inputs, parameters, stream=False)


async def _chat_job(front: Front, instance: Instance) -> GenerateJob:
    defaults = {"max_tokens": front.llm.max_model_len, **front.llm.sampling_defaults}
    body, params = decode_body(instance, ChatBody, defaults)
    front.check_model(body.model)
    _check_one_text(body, params)
    prompt = await conversation(body, None, front.llm.tokenizer)
    is_given = instance.get("max_tokens") is not None
    return GenerateJob(
        inputs=prompt.text or "",
        prompt_token_ids=prompt.token_ids,
        params=fitted(params, [prompt], front.llm, field="messages", is_given=is_given),
        seed=params.seed,
        parameters=GenerateParameters(),
        tokenizer=front.llm.tokenizer,
    )


def _check_one_text(body: ChatBody, params: SamplingParams) -> None:
    """Refuse what asks for more than the one text that answers an instance."""
    asked = [
        field.name
        for field in msgspec.structs.fields(ChatBody)
        if field.name not in _HONOURED and getattr(body, field.name) != field.default
    ]
    asked += [name for name in ("prompt_logprobs", "n") if getattr(params, name) not in (None, 1)]
    if asked:
        raise InvalidRequest(
            f"an instance is answered by one text: ask for {asked[0]} at /v1/chat/completions",
            param=asked[0],
        )


PREDICT = Endpoint(
    "POST",
    "/vertex",
    predict,
    body=VertexBody,
    answer=VertexAnswer,
    wording=TGI_WORDING,
    refused_early=True,
)


def vertex_routes(settings: ServerSettings) -> tuple[Endpoint, ...]:
    """The same where Vertex AI wants it to be, and the health of the server."""
    predict, health = settings.vertex_predict_route, settings.vertex_health_route
    return (
        *([replace(PREDICT, path=predict, told_by="instances")] if predict else ()),
        *([replace(HEALTH, path=health, wording=TGI_WORDING)] if health else ()),
    )
