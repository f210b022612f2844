"""The OpenAPI document, from the same structs that decode requests and encode answers."""

from typing import Any

import msgspec
from fastapi import FastAPI

from penstock.server.endpoint import Endpoint
from penstock.server.errors import ErrorBody
from penstock.server.openai.fields import IGNORED
from penstock.vocabulary.sampling_params import SamplingParams

_REF = "#/components/schemas/{name}"

_FAILURES = {
    400: "The request is at fault; the error says what is wrong, and in which field.",
    401: "An API key is needed.",
    404: "There is no such model.",
    413: "The request body is too large.",
    429: "The queue is full; Retry-After says when to come back.",
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
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body]
    _, components = msgspec.json.schema_components(
        [*answers, *bodies, ErrorBody, SamplingParams], ref_template=_REF
    )
    sampling = components.pop("SamplingParams")["properties"]
    for body in bodies:
        schema = components[body.__name__]
        schema["properties"] = _body_properties(schema, sampling)
        schema["description"] = "The endpoint's own fields and the sampling options. Null is unset."
    return components


def operation(endpoint: Endpoint) -> dict[str, Any]:
    """What OpenAPI says of one endpoint beyond its path and summary."""
    described: dict[str, Any] = {"responses": _responses(endpoint)}
    if endpoint.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(endpoint.body)}},
        }
    return described


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


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {endpoint.media_type: {"schema": _schema(endpoint.answer)}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failures = {
        str(status): {
            "description": text,
            "content": {"application/json": {"schema": _ref(ErrorBody)}},
        }
        for status, text in _FAILURES.items()
    }
    if not endpoint.body:
        failures = {status: failures[status] for status in ("401", "404", "503")}
    return {"200": {"description": "Success.", "content": content}, **failures}


def _schema(answer: type[msgspec.Struct] | None) -> dict[str, Any]:
    return {"type": "string"} if answer is None else _ref(answer)


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
