"""Any bytes to any route: an answer or a refusal, never a failure of the server."""

import json
import re
from functools import cache

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.server.routes import DIALECTS
from tests.fuzz.inputs import BRIEFLY, json_values, runner, spoiled
from tests.server.serving import client_of
from tests.server.test_any_body import BODIES, calling_llm, changed

ROUTES = [
    (re.sub("{.*?}", "scripted", endpoint.path), endpoint.body)
    for dialect in DIALECTS
    for endpoint in dialect.endpoints
    if endpoint.method == "POST"
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PLAUSIBLE = {
    **dict.fromkeys(("prompt", "prompts", "input", "inputs", "text", "query"), "Hi"),
    "model": "scripted",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ],
    "max_tokens": 5,
    "n": 2,
    "logprobs": 1,
    "stop": ["l"],
    "stream": True,
    "echo": True,
    "temperature": 0.5,
    "tools": [TOOL],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "guided_json": SCHEMA,
    "guided_regex": "a+",
    "logit_bias": {"1": 1.0},
    "stream_options": {"include_usage": True},
    "parameters": {"max_new_tokens": 2, "details": True},
    "seed": 1,
}
pieces = [*PLAUSIBLE.values(), [[1, 2], [3]], ["Hi", "Ho"], 2**63, -(2**70), 1e999, True, [[]], {}]
values = json_values | st.sampled_from(pieces)


@cache
def server():
    llm = calling_llm()
    return llm, client_of(llm, dialects=tuple(each.name for each in DIALECTS))


@st.composite
def requests(draw):
    """(path, body): mostly what the route expects, but for a few fields or bytes."""
    path, struct = draw(st.sampled_from(ROUTES))
    if draw(st.integers(0, 9)) == 0:
        return path, draw(st.binary())
    fields = [field.encode_name for field in msgspec.structs.fields(struct)] if struct else []
    fields = fields or list(PLAUSIBLE)
    body = {name: PLAUSIBLE[name] for name in fields if name in PLAUSIBLE and draw(st.booleans())}
    if path in BODIES and draw(st.booleans()):
        body = draw(changed(BODIES[path]))
    body |= draw(st.dictionaries(st.sampled_from([*fields, "unknown"]), values, max_size=3))
    raw = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return path, draw(spoiled(raw)) if draw(st.booleans()) else raw


@BRIEFLY
@given(requests())
def test_any_body_is_answered_or_refused_in_words(request):
    path, body = request
    llm, client = server()
    llm.submissions.clear()
    headers = {"content-type": "application/json"}
    answer = runner().run(client.post(path, content=body, headers=headers))
    assert answer.status_code < 500, answer.text
    assert "Its log tells more" not in answer.text  # a failure in the middle of a stream
    if answer.status_code >= 400:
        assert answer.json()
    assert not llm.in_flight, "a generation was left behind"
