"""The clients of Text Generation Inference against `penstock serve` and the embedded model."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.endtoend.own_environment import python_with
from tests.server.tgi_contract import GrammarContract, TgiContract

CLIENT = Path(__file__).parent / "clients" / "text_generation_client.py"


@pytest.fixture
def base_url(served):
    return served.url


class TestInferenceClient(TgiContract):
    """huggingface_hub's client finds everything it asks for."""


class TestGrammars(GrammarContract):
    """And texts follow the grammars it sends."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tgi_s_own_client_gets_all_it_asks_for(served):
    python = python_with("text-generation==0.7.0", "requests")
    run = subprocess.run([python, CLIENT, served.url], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["streamed"] == found["text"] == "".join(found["pieces"])
    assert found["num_tokens"] == found["num_top_tokens"] > 0
    assert found["finish_reason"] in ("length", "eos_token")
    assert found["num_others"] == 1
    assert found["num_prefill_tokens"] > 1
    assert isinstance(found["chat"], str)
    assert found["refusal"] == (
        "Input validation error: `stop` supports up to 4 stop sequences. Given: 5"
    )
