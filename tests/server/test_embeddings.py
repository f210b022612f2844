"""Worked examples of /v1/embeddings."""

import base64
import struct

import pytest

from tests.server.scripted_llm import ScriptedLLM, scripted_embedding
from tests.server.serving import client_of


async def embed(llm, status=200, **body):
    async with client_of(llm, max_prompts=3) as client:
        response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == status, response.text
    return response.json()


async def test_an_answer_has_this_shape(llm):
    answer = await embed(llm, model="scripted", input="Hi", user="u")
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": scripted_embedding([72, 105])}],
        "model": "scripted",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert llm.last.request.embeds
    assert llm.num_in_flight == 0


@pytest.mark.parametrize("given", [["Hi", "Ho"], [[72, 105], [72, 111]]])
async def test_several_texts_have_a_vector_each_in_their_order(llm, given):
    answer = await embed(llm, input=given)
    assert [each["index"] for each in answer["data"]] == [0, 1]
    vectors = [each["embedding"] for each in answer["data"]]
    assert vectors == [scripted_embedding([72, 105]), scripted_embedding([72, 111])]
    assert answer["usage"]["prompt_tokens"] == 4


async def test_vectors_may_come_as_bytes(llm):
    (item,) = (await embed(llm, input=[72, 105], encoding_format="base64"))["data"]
    vector = struct.unpack("<4f", base64.b64decode(item["embedding"]))
    assert vector == pytest.approx(scripted_embedding([72, 105]))


async def test_a_text_may_fill_the_context_and_be_cut_to_it():
    llm = ScriptedLLM(max_model_len=5)
    await embed(llm, input="abcde", dimensions=4)
    error = (await embed(llm, status=400, input="abcdef"))["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    await embed(llm, input="abcdef", truncate_prompt_tokens=-1)
    assert llm.last.prompt == "bcdef"


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": ["a"] * 4}, "input"),
        ({"input": [300]}, "input"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "n": 2}, "n"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(llm, body, param):
    assert (await embed(llm, status=400, **body))["error"]["param"] == param


async def test_the_model_says_what_its_vectors_are(client):
    (card,) = (await client.get("/v1/models")).json()["data"]
    assert "mean of the last hidden states" in card["embeddings"]
    assert card["embedding_size"] == 4
