"""huggingface_hub's client against a real server over a scripted engine."""

import pytest
from huggingface_hub.errors import GenerationError, OverloadedError

from penstock.vocabulary.errors import Overloaded
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening
from tests.server.tgi_contract import TgiContract, asking


@pytest.fixture(scope="module")
def base_url():
    with listening(ScriptedLLM(Script("\n    return 1 if n < 2"))) as url:
        yield url


class TestScripted(TgiContract):
    """The whole contract, over a scripted engine."""


def raises_generation_error():
    return pytest.raises(GenerationError, match="The engine process died")


def test_an_engine_that_dies_is_a_generation_error():
    llm = ScriptedLLM(Script(fails_after=0))
    with listening(llm) as url, asking(url) as client, raises_generation_error():
        client.text_generation("x")


def test_an_engine_that_dies_in_a_stream_is_a_generation_error_too():
    llm, received = ScriptedLLM(Script(fails_after=2)), []
    with listening(llm) as url, asking(url) as client:
        stream = client.text_generation("x", stream=True)
        with raises_generation_error():
            received += stream


def test_a_full_queue_is_an_overloaded_error():
    llm = ScriptedLLM()
    llm.refusal = Overloaded("The queue is full.", retry_after_s=1)
    with listening(llm) as url, asking(url) as client, pytest.raises(OverloadedError):
        client.text_generation("x")
