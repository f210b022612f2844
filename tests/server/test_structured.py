"""What an answer must look like, in the fields of OpenAI's API and of vLLM."""

import json

import pytest

from penstock.vocabulary.grammar import Grammar
from tests.server.scripted_llm import Script
from tests.server.serving import client_of
from tests.server.test_metrics import samples

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"z": {}, "a": {}}, "required": ["z"]}
TAGS = {
    "triggers": ["<fn="],
    "structures": [{"begin": "<fn=f>", "schema": SCHEMA, "end": "</fn>"}],
}


def body(path: str, fields: dict) -> dict:
    said = [{"role": "user", "content": "Hi"}]
    return {**({"prompt": "Hi"} if path == COMPLETIONS else {"messages": said}), **fields}


async def asked(client, llm, path: str, fields: dict) -> Grammar | None:
    response = await client.post(path, json=body(path, fields))
    assert response.status_code == 200, response.text
    return llm.last.params.grammar


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    "fields, kind, text",
    [
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
                }
            },
            "json_schema",
            SCHEMA,
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "json_object",
            "",
        ),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", SCHEMA),
        ({"guided_regex": "[0-9]+"}, "regex", "[0-9]+"),
        ({"guided_choice": ["yes", "no"]}, "choice", ["yes", "no"]),
        ({"guided_grammar": 'root ::= "a"'}, "lark", 'root ::= "a"'),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json_schema", {"type": "object"}),
        ({"structured_outputs": {"regex": "x"}}, "regex", "x"),
        ({"structured_outputs": {"choice": ["x"]}}, "choice", ["x"]),
        ({"structured_outputs": {"grammar": "start: /x/"}}, "lark", "start: /x/"),
        ({"structured_outputs": {"structural_tag": json.dumps(TAGS)}}, "structural_tag", TAGS),
        (
            {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}},
            "json_schema",
            {
                "x-guidance": {"whitespace_flexible": False, "whitespace_pattern": None},
                **SCHEMA,
            },
        ),
        (
            {"structured_outputs": {"json": json.dumps(SCHEMA), "whitespace_pattern": " ?"}},
            "json_schema",
            {"x-guidance": {"whitespace_pattern": " ?"}, **SCHEMA},
        ),
        ({"grammar": {"kind": "regex", "text": "x", "after": "</think>"}}, "regex", "x"),
    ],
)
async def test_every_way_to_ask_for_a_grammar_is_understood(client, llm, path, fields, kind, text):
    grammar = await asked(client, llm, path, fields)
    assert grammar is not None and grammar.kind == kind
    if isinstance(text, str):
        assert grammar.text == text
    else:
        assert json.loads(grammar.text) == text
        assert list(json.loads(grammar.text)) == list(text), "properties in another order"
    assert grammar.param == next(iter(fields)), "an error names what the client wrote"


async def test_structural_tags_come_as_a_response_format_too(client, llm):
    grammar = await asked(
        client, llm, CHAT, {"response_format": {"type": "structural_tag", **TAGS}}
    )
    assert grammar is not None and grammar.kind == "structural_tag"
    tags = json.loads(grammar.text)
    assert tags == {**TAGS, "at_least_one": False, "stop_after_first": False}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "text"}},
        {"response_format": None, "guided_json": None},
        {"guided_decoding_backend": "xgrammar"},
    ],
)
async def test_any_text_is_the_default(client, llm, fields):
    assert await asked(client, llm, CHAT, fields) is None


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    "fields, param, words",
    [
        (
            {"guided_regex": "a", "guided_choice": ["b"]},
            "guided_choice",
            "guided_regex and guided_choice both say",
        ),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "response_format and structured_outputs both say",
        ),
        (
            {"grammar": {"kind": "regex", "text": "a"}, "guided_json": {}},
            "guided_json",
            "grammar and guided_json both say",
        ),
        ({"structured_outputs": {}}, "structured_outputs", "it holds 0"),
        (
            {"structured_outputs": {"regex": "a", "choice": ["b"]}},
            "structured_outputs",
            "it holds 2",
        ),
        (
            {"structured_outputs": {"regex": "a", "disable_any_whitespace": True}},
            "structured_outputs",
            "for JSON only",
        ),
        (
            {"structured_outputs": {"json": "{", "disable_any_whitespace": True}},
            "structured_outputs",
            "truncated",
        ),
        ({"structured_outputs": {"jason": {}}}, "structured_outputs", "unknown field `jason`"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "Invalid value"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "`json_schema`"),
        ({"response_format": "json"}, "response_format", "Expected `object"),
        ({"guided_choice": "yes"}, "guided_choice", "Expected `array"),
        ({"guided_json": 5}, "guided_json", "Expected `str | object"),
        ({"grammar": {"kind": "regexp", "text": "a"}}, "grammar", "regexp"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "combined with guided_regex"),
        (
            {"guided_regex": "a", "allowed_token_ids": [3]},
            "allowed_token_ids",
            "combined with guided_regex",
        ),
        (
            {"guided_regex": "a", "banned_token_ids": [3]},
            "banned_token_ids",
            "combined with guided_regex",
        ),
    ],
)
async def test_what_is_contradictory_is_refused_by_the_name_of_the_field(
    client, llm, path, fields, param, words
):
    response = await client.post(path, json=body(path, fields))
    error = response.json()["error"]
    assert response.status_code == 400 and words in error["message"]
    assert error["param"] == param
    assert not llm.submissions


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_is_the_client_s_error_streamed_or_not(llm, stream):
    llm.script = Script(refused="guided_regex: unclosed group")
    async with client_of(llm) as client:
        response = await client.post(
            COMPLETIONS, json={"prompt": "Hi", "guided_regex": "(", "stream": stream}
        )
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "guided_regex"
        found = await samples(client)
    assert found["penstock_completions_finished_total", "refused"] == 1
    assert not llm.in_flight
