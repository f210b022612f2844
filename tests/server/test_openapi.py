"""The OpenAPI document says what the server takes and gives."""

import pytest

from penstock.server.openai.fields import IGNORED
from penstock.server.routes import routes_of
from penstock.server.settings import ServerSettings
from penstock.vocabulary.sampling_params import SamplingParams


@pytest.fixture
async def document(client):
    return (await client.get("/openapi.json")).json()


def test_every_route_is_described(document):
    for endpoint in routes_of(ServerSettings().dialects):
        path = endpoint.path.replace(":path", "")
        operation = document["paths"][path][endpoint.method.lower()]
        assert operation["summary"]
        assert "200" in operation["responses"]


async def test_a_body_has_its_own_fields_the_sampling_options_and_the_ignored_ones(document):
    schemas = document["components"]["schemas"]
    body = schemas["CompletionBody"]
    assert body["required"] == ["prompt"]
    assert body["additionalProperties"] is False
    expected = {"prompt", "echo", "stream", *SamplingParams.__struct_fields__, *IGNORED}
    assert expected <= body["properties"].keys()
    top_p = body["properties"]["top_p"]
    assert top_p["anyOf"] == [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "null"},
    ]
    assert top_p["description"] and top_p["default"] == 1.0
    logprobs = schemas["ChatBody"]["properties"]["logprobs"]
    assert {"type": "boolean"} in logprobs["anyOf"]


async def test_no_reference_leads_nowhere(document):
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


async def test_failures_have_one_schema(document):
    responses = document["paths"]["/v1/completions"]["post"]["responses"]
    for status in ("400", "401", "404", "413", "429", "500", "503", "504"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorBody"}
