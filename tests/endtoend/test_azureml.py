"""`penstock azureml`, and our score script under Azure's own inference server."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from penstock.models.location import embedded_model_dir
from tests.endtoend.own_environment import SEES_OURS, python_with
from tests.endtoend.served import START_S, eventually, running

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).parent / "clients" / "azure_ai_inference_client.py"
SERVER = ("-m", "azureml_inference_server_http")
KEY = "hush-this-is-a-secret"
MLMODEL = "metadata: {base_model_task: chat-completion, model_provider_name: Somebody}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """The embedded model as Azure mounts an MLflow model."""
    root = tmp_path_factory.mktemp("azureml-models")
    folder = root / "mlflow_model_folder"
    shutil.copytree(embedded_model_dir(), folder / "model")
    (folder / "MLmodel").write_text(MLMODEL)
    return root


@pytest.fixture(scope="module")
def deployed(mounted, tmp_path_factory):
    environment = {
        **os.environ,
        "AZUREML_MODEL_DIR": str(mounted),
        "WORKER_COUNT": "128",
        "PENSTOCK_PORT": "0",
        "PENSTOCK_API_KEY": KEY,
        "AZURE_CLIENT_SECRET": KEY,
    }
    folder = tmp_path_factory.mktemp("azureml")
    with running(folder, "azureml", environment=environment) as server:
        server.client.headers["authorization"] = f"Bearer {KEY}"
        yield server


def test_the_mounted_model_answers(deployed):
    chat = {"input_string": [{"role": "user", "content": "Hi"}], "parameters": {"max_gen_len": 4}}
    answer = deployed.client.post("/score", json={"input_data": chat})
    assert answer.status_code == 200
    assert answer.json().keys() == {"output"}
    assert answer.json()["output"]


def test_a_text_is_refused_since_the_model_s_folder_says_chat(deployed):
    answer = deployed.client.post("/score", json={"input_data": ["def f():"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_task")


def test_the_probes_need_no_key_and_the_rest_does(deployed):
    assert httpx.get(deployed.url).text == "Healthy"
    assert httpx.get(f"{deployed.url}/info").status_code == 401


def test_the_log_tells_what_has_no_effect_and_no_secret(deployed):
    log = deployed.log.read_text()
    assert "WORKER_COUNT has no effect" in log
    assert KEY not in log


def test_nothing_answers_before_the_model_is_loaded(mounted, tmp_path):
    port = free_port()
    environment = {
        **os.environ,
        "AZUREML_MODEL_DIR": str(mounted),
        "PENSTOCK_HOST": "127.0.0.1",
        "PENSTOCK_PORT": str(port),
    }
    first: list[int] = []

    def answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            first.append(httpx.get(f"http://127.0.0.1:{port}/").status_code)
        return bool(first)

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(eventually, answered, START_S)
        with running(tmp_path, "azureml", environment=environment):
            assert asking.result()
    assert first == [200]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_azure_s_client_of_the_model_inference_api_gets_all_it_asks_for(deployed):
    python = python_with("azure-ai-inference==1.0.0b9")
    run = subprocess.run(
        [python, CLIENT, deployed.url, KEY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert (found["model_type"], found["provider"]) == ("chat_completion", "Somebody")
    assert found["streamed"] == found["text"] == found["with_extra"]
    assert 0 < found["num_tokens"] <= 8
    assert found["refusal"] == 422


@pytest.fixture(scope="module")
def inference_server(mounted, tmp_path_factory):
    """The URL of azmlinfsrv with our score script."""
    python = python_with("azureml-inference-server-http==1.5.1")
    script = ROOT / "examples" / "azureml" / "score.py"
    port = free_port()
    log = tmp_path_factory.mktemp("azmlinfsrv") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, *SERVER, "--entry_script", script, "--port", str(port)],
            env={**os.environ, **SEES_OURS, "AZUREML_MODEL_DIR": str(mounted)},
            stdout=output,
            stderr=output,
        )
    url = f"http://127.0.0.1:{port}"

    def is_healthy() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(url).status_code == 200
        return False

    try:
        assert eventually(is_healthy, START_S), log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_score_script_answers_under_azure_s_own_server(inference_server):
    chat = {"input_string": [{"role": "user", "content": "Hi"}], "parameters": {"max_gen_len": 4}}
    answer = httpx.post(f"{inference_server}/score", json={"input_data": chat})
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"]
    refused = httpx.post(f"{inference_server}/score", json={"input_data": ["a"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "wrong_task")
    assert refused.headers["x-ms-run-function-failed"] == "True"
