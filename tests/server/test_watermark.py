"""Asking for a watermark, and for its detection, over HTTP."""

import pytest

from penstock.text.watermark import Greens
from penstock.vocabulary.watermark import Watermark
from tests.server.serving import client_of

KEY = "a secret"


@pytest.fixture
async def marking(llm):
    llm.watermark_key = KEY
    async with client_of(llm) as client:
        yield client


def marked_text(length: int = 100) -> str:
    """Letters, which are tokens here, each green behind the one before where one can be."""
    greens, text = Greens(KEY), [ord("a")]
    unused = {(a, b) for a in range(33, 126) for b in range(33, 126)}
    while len(text) < length:
        choices = [b for b in range(33, 126) if (text[-1], b) in unused]
        text.append(next(b for b in choices if greens.are_green(text[-1:], [b], 0.5)[0]))
        unused.discard((text[-2], text[-1]))
    return bytes(text).decode()


async def test_the_option_reaches_the_engine(llm, marking):
    asked = {"prompt": "Hi", "watermark": True}
    assert (await marking.post("/v1/completions", json=asked)).status_code == 200
    assert llm.last.params.marking == Watermark()
    asked = {"messages": [{"role": "user", "content": "Hi"}], "watermark": {"delta": 3.5}}
    assert (await marking.post("/v1/chat/completions", json=asked)).status_code == 200
    assert llm.last.params.marking == Watermark(delta=3.5)


async def test_the_detector_tells_marked_from_unmarked(marking):
    found = await marking.post("/v1/watermark/detect", json={"text": marked_text()})
    assert found.status_code == 200
    report = found.json()
    assert report["is_watermarked"] and report["z_score"] > 9
    assert report["num_green"] == report["num_scored"] == 99 and report["p_value"] < 1e-20
    plain = await marking.post("/v1/watermark/detect", json={"text": "Nothing to see here."})
    assert plain.json()["is_watermarked"] is False


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "x"}, "text"),
        ({"text": 3}, "text"),
        ({"text": "hello", "gamma": 1}, "gamma"),
        ({"text": "hello", "key": "guess"}, "key"),
    ],
)
async def test_what_cannot_be_scored_is_refused_by_name(marking, body, field):
    refused = await marking.post("/v1/watermark/detect", json=body)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == field


async def test_a_server_without_a_key_says_so(client):
    refused = await client.post("/v1/watermark/detect", json={"text": "hello"})
    assert refused.status_code == 400 and "no watermark key" in refused.json()["error"]["message"]


async def test_the_detector_is_behind_the_api_key(llm):
    """Whoever may ask it as often as he likes can wash a text until it passes."""
    llm.watermark_key = KEY
    async with client_of(llm, api_keys=("k",)) as client:
        refused = await client.post("/v1/watermark/detect", json={"text": "hello"})
        assert refused.status_code == 401
