"""Server-sent events, byte by byte."""

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.server.sse import EventTemplate, json_text


@given(st.text())
def test_a_text_survives_and_no_client_takes_it_for_two_lines(text):
    encoded = json_text(text)
    assert json.loads(encoded) == text
    assert len(encoded.decode().splitlines()) == 1


def test_what_some_clients_take_for_line_ends_is_escaped():
    assert json_text("a\u2028b\u2029c\x85d\ne\rf") == rb'"a\u2028b\u2029c\u0085d\ne\rf"'


def test_an_event_is_its_constant_part_around_the_choice():
    usage = {"prompt_tokens": 1}
    template = EventTemplate({"id": "x", "model": 'quo"te'}, usage, "last")
    choice = template.choice(b'{"index":0,', b'"text":"hi"}')
    assert choice == (
        b'data: {"id":"x","model":"quo\\"te","choices":[{"index":0,"text":"hi"}],"usage":null}\n\n'
    )
    usage["prompt_tokens"] = 2
    assert template.end() == (
        b'data: {"id":"x","model":"quo\\"te","choices":[],"usage":{"prompt_tokens":2}}\n\n'
        b"data: [DONE]\n\n"
    )
