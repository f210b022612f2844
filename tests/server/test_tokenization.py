"""Worked examples of /tokenize, /detokenize and /version."""

import pytest

import penstock
from penstock.text.tokenizer import Tokenizer
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of
from tests.text.vocabularies import byte_level

HELLO = [{"role": "user", "content": "Hi"}]


async def post(client, path, **body):
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text_is_tokenized(client):
    assert await post(client, "/tokenize", prompt="Hi") == {
        "count": 2,
        "max_model_len": 1000,
        "tokens": [72, 105],
        "token_strs": None,
    }
    told = await post(client, "/tokenize", prompt="Hi", return_token_strs=True)
    assert told["token_strs"] == ["H", "i"]


async def test_a_conversation_is_tokenized_as_chat_would(client, llm):
    told = await post(client, "/tokenize", messages=HELLO)
    await post(client, "/v1/chat/completions", messages=HELLO)
    assert told["tokens"] == llm.last.request.prompt_token_ids
    short = await post(client, "/tokenize", messages=HELLO, add_generation_prompt=False)
    assert bytes(short["tokens"]) == b"<|user|>Hi"


async def test_detokenizing_undoes_tokenizing_special_tokens_included(client):
    assert await post(client, "/detokenize", tokens=[72, 105, 256]) == {"prompt": "Hi<|end|>"}


async def test_special_tokens_are_added_to_a_text_unless_told_otherwise_and_to_a_chat_if_told():
    llm = ScriptedLLM()
    library = byte_level()
    library.add_special_tokens(["<s>"])
    llm.tokenizer = Tokenizer(
        library,
        special_tokens={"bos_token": "<s>"},
        add_bos_token=True,
        chat_template_source="{{ messages[0].content }}",
    )
    bos = llm.tokenizer.special_tokens["<s>"]
    async with client_of(llm) as client:

        async def begins_with_bos(path="/tokenize", **body):
            told = await post(client, path, **body)
            tokens = told["tokens"] if path == "/tokenize" else llm.last.request.prompt_token_ids
            assert bos not in tokens[1:]
            return tokens[0] == bos

        assert await begins_with_bos(prompt="Hi")
        assert not await begins_with_bos(prompt="Hi", add_special_tokens=False)
        assert not await begins_with_bos(messages=HELLO)
        assert await begins_with_bos(messages=HELLO, add_special_tokens=True)
        chat, text = "/v1/chat/completions", "/v1/completions"
        assert not await begins_with_bos(chat, messages=HELLO)
        assert await begins_with_bos(chat, messages=HELLO, add_special_tokens=True)
        assert not await begins_with_bos(text, prompt="Hi", add_special_tokens=False)


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "a", "foo": 1}, "foo"),
        ("/detokenize", {"tokens": [257]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ],
)
async def test_what_cannot_be_tokenized_is_refused(client, path, body, param):
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_the_version_is_told(client):
    assert (await client.get("/version")).json() == {"version": penstock.__version__}
