"""Any text in any pieces, through every stream of every dialect, to strict readers and lax ones."""

import json
import re
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import BRIEFLY, runner, texts
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of

MESSAGES = [{"role": "user", "content": "Hi"}]
STREAMS = {
    "/v1/completions": (
        {"prompt": "Hi"},
        lambda event: "".join(choice["text"] for choice in event["choices"]),
    ),
    "/v1/chat/completions": (
        {"messages": MESSAGES},
        lambda event: "".join(choice["delta"].get("content") or "" for choice in event["choices"]),
    ),
    "/v1/messages": (
        {"model": "scripted", "messages": MESSAGES},
        lambda event: event.get("delta", {}).get("text", ""),
    ),
    "/v1/responses": (
        {"input": "Hi"},
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
    ),
    "/generate_stream": ({"inputs": "Hi"}, lambda event: event["token"]["text"]),
    "/mii/scripted": ({"prompts": "Hi"}, lambda event: event[0]["generated_text"]),
    "/generate": ({"prompt": "Hi"}, lambda event: event["text"][0]),
}
"""By route: a request, and the text in an event's data."""
LIMITS = {
    "/mii/scripted": {"max_new_tokens": 900},
    "/v1/responses": {"max_output_tokens": 900},
    "/generate_stream": {"parameters": {"max_new_tokens": 900}},
}


@cache
def server():
    llm = ScriptedLLM()
    return llm, client_of(llm, dialects=("openai", "anthropic", "tgi", "mii"))


def strict(stream: str) -> list[str]:
    """The data of the events, by the standard:
    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    found, data = [], []
    lines = re.split("\r\n|\n|\r", stream.removeprefix("\ufeff"))
    for line in lines:
        name, _, value = line.partition(":")
        assert name in ("", "data", "event"), "the line is of no field that we send"
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            found.append("\n".join(data))
            data = []
    assert not data, "the last event is incomplete"
    return found


def lax(stream: str) -> list[str]:
    """The same for a client that splits lines as Python does, at whatever ends one anywhere."""
    lines = (line for line in stream.splitlines() if line.startswith("data:"))
    return [line.removeprefix("data:").removeprefix(" ") for line in lines]


@BRIEFLY
@given(st.sampled_from(sorted(STREAMS)), texts, st.integers(1, 9))
def test_every_reader_of_a_stream_gets_the_text_as_it_was(path, text, tokens_per_step):
    llm, client = server()
    llm.submissions.clear()
    llm.script = Script(text or "-", tokens_per_step=tokens_per_step)
    body, text_of = STREAMS[path]
    limit = LIMITS.get(path, {"max_tokens": 900})
    request = client.post(path, json={**body, **limit, "stream": True})
    answer = runner().run(request)
    assert answer.status_code == 200, answer.text
    stream = answer.content.decode()
    data = strict(stream)
    assert lax(stream) == data
    events = [json.loads(each) for each in data if each != "[DONE]"]
    assert "".join(map(text_of, events)) == (text or "-").encode()[:900].decode(errors="ignore")
