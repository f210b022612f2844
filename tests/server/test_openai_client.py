"""The official `openai` client against a real server over a scripted engine."""

import openai
import pytest

from penstock.vocabulary.errors import Overloaded, Unavailable
from tests.server.openai_contract import MESSAGES, OpenAIContract
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening


@pytest.fixture(scope="module")
def base_url():
    with listening(ScriptedLLM(Script("\n    return 1 if n < 2 else 0", num_cached=4))) as url:
        yield url


class TestScripted(OpenAIContract):
    """The whole contract, over a scripted engine."""


def client_at(url, **options):
    return openai.OpenAI(base_url=f"{url}/v1", **{"api_key": "any", "max_retries": 0, **options})


def test_an_engine_that_dies_in_a_stream_is_an_error_to_the_client_and_no_short_success():
    llm = ScriptedLLM(Script("Hello", fails_after=2))
    received = []
    with listening(llm) as url, client_at(url) as client:
        stream = client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="The engine process died"):
            received += [chunk.choices[0].delta.content for chunk in stream]
        stream = client.completions.create(model="scripted", prompt="a", stream=True)
        with pytest.raises(openai.APIError, match="The engine process died") as raised:
            list(stream)
    assert raised.value.code == "engine_failed"


def test_an_engine_that_dies_earlier_is_an_internal_server_error():
    llm = ScriptedLLM(Script("Hello", fails_after=0))
    with listening(llm) as url, client_at(url) as client, pytest.raises(openai.InternalServerError):
        client.completions.create(model="scripted", prompt="a", stream=True)


def test_a_full_queue_is_a_rate_limit_error_and_the_client_comes_back_when_told(monkeypatch):
    llm = ScriptedLLM()
    llm.refusal = Overloaded("The queue is full.", retry_after_s=1)
    with listening(llm) as url:
        with client_at(url) as client, pytest.raises(openai.RateLimitError) as raised:
            client.completions.create(model="scripted", prompt="a")
        assert raised.value.response.headers["retry-after"] == "1"
        llm.refusal = Unavailable("The engine is being restarted.")
        with client_at(url) as client, pytest.raises(openai.InternalServerError) as raised:
            client.completions.create(model="scripted", prompt="a")
        assert raised.value.status_code == 503


def test_the_key_is_checked():
    with listening(ScriptedLLM(), api_keys=("right",)) as url:
        with client_at(url) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with client_at(url, api_key="right") as client:
            assert client.completions.create(model="scripted", prompt="a").choices


async def test_the_asynchronous_client_can_leave_a_stream():
    llm = ScriptedLLM(Script("Hello, world", hangs_after=3))
    with listening(llm) as url:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
            stream = await client.completions.create(model="scripted", prompt="a", stream=True)
            async for chunk in stream:
                if chunk.choices[0].text == "e":
                    break
            await stream.close()
            for _ in range(100):
                if not llm.in_flight:
                    break
                await client.models.list()
    assert len(llm.cancelled) == 1
