"""The OpenAPI document, from the same structs that decode requests and encode answers."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI

from penstock.server.endpoint import Endpoint
from penstock.server.errors import HttpError
from penstock.server.openai.bodies import GenerationBody
from penstock.server.openai.fields import IGNORED
from penstock.vocabulary.sampling_params import SamplingParams

_EVENTS = "text/event-stream"
_IN_PATH = re.compile(r"{(\w+)")
_REF = "#/components/schemas/{name}"

_FAILURES = {
    400: "The request is at fault; the error says what is wrong, and in which field.",
    401: "An API key is needed.",
    403: "The route is for admins, or the request comes from a web page that may not send any.",
    404: "There is no such model.",
    413: "The request body is too large.",
    429: "The queue is full or the key's limits are; Retry-After says when to come back.",
    500: "The engine or the server failed.",
    503: "The server is not ready, or shutting down; Retry-After says when to come back.",
    504: "The request took longer than the server allows.",
}


class DescribedApp(FastAPI):
    """A FastAPI application that describes its endpoints by their structs."""

    endpoints: tuple[Endpoint, ...] = ()

    def openapi(self) -> dict[str, Any]:
        """The document at /openapi.json."""
        is_new = self.openapi_schema is None
        document = super().openapi()
        if is_new:
            document["components"] = {"schemas": component_schemas(self.endpoints)}
        return document


def component_schemas(endpoints: tuple[Endpoint, ...]) -> dict[str, Any]:
    """Schemas of all bodies and answers. A body takes the sampling options too."""
    answers = [endpoint.answer for endpoint in endpoints if endpoint.answer]
    bodies = list(dict.fromkeys(endpoint.body for endpoint in endpoints if endpoint.body))
    failures = dict.fromkeys(endpoint.wording.schema for endpoint in endpoints)
    _, components = msgspec.json.schema_components(
        [*answers, *bodies, *failures, SamplingParams], ref_template=_REF
    )
    sampling = components["SamplingParams"]["properties"]
    for body in (body for body in bodies if issubclass(body, GenerationBody)):
        schema = components[body.__name__]
        schema["properties"] = _body_properties(schema, sampling)
        schema["description"] = "The endpoint's own fields and the sampling options. Null is unset."
    return components


def operation(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """What OpenAPI says of the endpoints at one path beyond the path itself and a summary."""
    described: dict[str, Any] = {"responses": _responses(endpoints)}
    if names := _IN_PATH.findall(endpoints[0].path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if bodies := [_ref(endpoint.body) for endpoint in endpoints if endpoint.body]:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _any_of(bodies)}},
        }
    return described


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    different = [schema for at, schema in enumerate(schemas) if schema not in schemas[:at]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _body_properties(schema: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    required = schema.get("required", [])
    ignored = {
        name: {"description": f"Accepted without effect: {reason}."}
        for name, reason in IGNORED.items()
    }
    optional = {**sampling, **schema["properties"]}
    return {
        **{name: optional.pop(name) for name in required},
        **{name: _or_null(property_) for name, property_ in optional.items()},
        **ignored,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A null counts as not given."""
    if {"type": "null"} in schema.get("anyOf", []):
        return schema
    about = {"description", "default"}
    described = {name: value for name, value in schema.items() if name in about}
    constraint = {name: value for name, value in schema.items() if name not in about}
    return {**described, "anyOf": [constraint, {"type": "null"}]}


def _responses(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media_type in dict.fromkeys(endpoint.media_type for endpoint in endpoints):
        answers = [_schema(each.answer) for each in endpoints if each.media_type == media_type]
        content[media_type] = {"schema": _any_of(answers)}
    if _EVENTS in content:  # before version 3.2, OpenAPI has no words for the data of events
        [answer] = [each.answer for each in endpoints if each.media_type == _EVENTS]
        words = f"Server-sent events; the data of each is a {answer.__name__}."
        content[_EVENTS] = {"schema": {"description": words}}
    elif any(endpoint.streams for endpoint in endpoints):
        content[_EVENTS] = {"schema": {"description": "Server-sent events."}}
    return {"200": {"description": "Success.", "content": content}, **_failures(endpoints)}


def _failures(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """By status, which a dialect may have of its own."""
    has_body = any(endpoint.body for endpoint in endpoints)
    wordings = list(dict.fromkeys(endpoint.wording for endpoint in endpoints))
    content = {
        "application/json": {"schema": _any_of([_ref(wording.schema) for wording in wordings])}
    }
    return {
        str(status): {"description": text, "content": content}
        for ours, text in _FAILURES.items()
        if has_body or ours in (401, 403, 404, 429, 503)
        for wording in wordings
        for status in (wording.status_of(HttpError(ours, text)), *({ours} & {*wording.also}))
    }


@functools.cache
def _schema(answer: Any) -> dict[str, Any]:
    """What every application needs anew, and what takes most of the time of making one."""
    if answer is None:
        return {"type": "string"}
    (schema,), _ = msgspec.json.schema_components([answer], ref_template=_REF)
    return schema


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
