import pytest

from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import client_of


@pytest.fixture
def llm():
    return ScriptedLLM()


@pytest.fixture
async def client(llm):
    async with client_of(llm) as client:
        yield client
