"""penstock.pipeline, penstock.serve and penstock.client, with the embedded model."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import openai
import pytest

import penstock
from penstock.server.deployments import record
from penstock.server.deployments.record import Deployment
from penstock.server.mii.response import Response
from penstock.vocabulary.errors import InvalidRequest, ModelError, NoSuchServer, SettingsError
from tests.endtoend.commands import typed
from tests.endtoend.served import eventually

GREEDY = {"max_new_tokens": 8, "do_sample": False, "ignore_eos": True}
START = """
import penstock
client = penstock.serve(deployment_name="started elsewhere", kv_cache_gib=0.2, max_length=512)
print(client.generate("import os", max_new_tokens=4, do_sample=False)[0])
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Deployments of these tests are written down where no others are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield record.directory()
        for left in record.running():
            os.kill(left.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def deployment(places):
    """A deployment that another process has started, which has ended since."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", START], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    yield record.find("started elsewhere")
    for left in record.running():
        penstock.client(left.name).terminate_server()


@pytest.fixture
def client(deployment):
    return penstock.client(deployment.name)


def cli(*arguments: str) -> subprocess.CompletedProcess:
    return typed("deployments", *arguments, env={**os.environ, "COLUMNS": "300"})


def test_a_pipeline_continues_prompts_in_this_process():
    pipe = penstock.pipeline(kv_cache_gib=0.2, tensor_parallel=1)
    first, second = pipe(["import os", "class Stack:"], **GREEDY)
    assert isinstance(first, Response) and str(first) == first.generated_text
    assert (first.generated_length, first.finish_reason) == (8, "length")
    assert first.prompt_length > 0 and first.generated_text != second.generated_text
    [full] = pipe("import os", return_full_text=True, **GREEDY)
    assert full.generated_text == "import os" + first.generated_text
    with pytest.raises(InvalidRequest, match="max_tokens"):
        pipe("import os", max_tokens=3)
    with pytest.raises(InvalidRequest, match="does not stream"):
        pipe("import os", stream=True)
    pipe.destroy()
    with pytest.raises(InvalidRequest, match="destroyed"):
        pipe("import os")


def test_a_pipeline_computes_on_one_device_and_leaves_replicas_to_a_server():
    for several in ({"replica_num": 2}, {"device_map": [[0], [1]]}):
        with pytest.raises(SettingsError, match=r"2 replicas were asked for.*penstock\.serve"):
            penstock.pipeline(**several)
    with pytest.raises(SettingsError, match="tensor parallelism"):
        penstock.pipeline(device_map=[0, 1])
    with pytest.raises(SettingsError, match="above 0"):
        penstock.pipeline(replica_num=0)
    one = penstock.pipeline(device="cpu", replica_num=1, device_map="auto", kv_cache_gib=0.1)
    assert one("import os", **GREEDY)


def test_a_deployment_outlives_the_process_that_started_it(client):
    first, second = client.generate(["import os", "class Stack:"], **GREEDY)
    assert (first.generated_length, first.finish_reason) == (8, "length")
    assert client("import os", **GREEDY) == [first] != [second]


def test_a_single_prompt_can_be_streamed(client):
    [whole] = client.generate("import os", **GREEDY)
    heard: list[Response] = []
    assert (
        client.generate("import os", streaming_fn=lambda new: heard.extend(new), **GREEDY) is None
    )
    assert "".join(map(str, heard)) == whole.generated_text and len(heard) > 1
    assert [each.finish_reason for each in heard][-1] == "length"


def test_refusals_are_the_errors_that_they_are_in_python(client):
    with pytest.raises(InvalidRequest, match="top_p") as refused:
        client.generate("import os", top_p=3)
    assert refused.value.param == "top_p"
    with pytest.raises(InvalidRequest, match="Only one prompt"):
        client.generate(["a", "b"], streaming_fn=print)


def test_other_clients_reach_it_with_its_key_and_nobody_without(client):
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key=client.api_key) as other:
        [model] = other.models.list().data
        assert model.id == client.deployment_name and model.model_extra["max_model_len"] == 512
    with (
        openai.OpenAI(base_url=f"{client.url}/v1", api_key="guess") as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()


def test_what_is_written_down_is_for_its_user_only(places, deployment):
    assert stat.S_IMODE(places.stat().st_mode) == 0o700
    [path] = places.glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert deployment.api_key not in repr(deployment)
    assert deployment.api_key not in Path(deployment.log).read_text()
    arguments = Path(f"/proc/{deployment.pid}/cmdline").read_bytes()
    assert deployment.api_key.encode() not in arguments


def test_a_deployment_of_several_replicas_answers_as_one(client, places):
    prompts = ["import os", "class Stack:", "def add(a, b):"]
    several = penstock.serve(deployment_name="several", replica_num=2, kv_cache_gib=0.1)
    try:
        health = httpx.get(f"{several.url}/health/ready").json()
        assert health["replicas"] == {"ready": 2, "of": 2}
        assert several.generate(prompts, **GREEDY) == client.generate(prompts, **GREEDY)
    finally:
        several.terminate_server()


def test_a_name_is_taken_while_its_deployment_runs(deployment):
    with pytest.raises(SettingsError, match="'started elsewhere' is running"):
        penstock.serve(deployment_name=deployment.name)


def test_it_is_found_by_its_model_too_and_others_are_not_found(deployment):
    assert penstock.client(deployment.model).deployment_name == deployment.name
    with pytest.raises(NoSuchServer, match="There are: started elsewhere"):
        penstock.client("another")


def test_what_cannot_be_served_is_said_by_the_one_who_starts_it(places):
    with pytest.raises(ModelError, match="/no/such/model"):
        penstock.serve("/no/such/model", deployment_name="wrong")
    with pytest.raises(SettingsError, match="max_model_len 1 "):
        penstock.serve(deployment_name="wrong", max_length=1)
    with pytest.raises(SettingsError, match="Did you mean token_budget"):
        penstock.serve(deployment_name="wrong", token_buget=1)
    with pytest.raises(SettingsError, match="One process"):
        penstock.serve(deployment_name="wrong", tensor_parallel=2)
    assert "wrong" not in [each.name for each in record.running()]


def test_what_is_left_of_a_dead_deployment_is_not_taken_for_one(places, deployment):
    """Neither if its process has ended, nor if another has got its number since."""
    for name, pid in (("ended", 2**22 - 1), ("another process", os.getpid())):
        left = Deployment(
            name=name, model="m", pid=pid, started=1, url="http://x", api_key="k", log="l"
        )
        record.write(left)
        assert (places / f"{quote(name)}.json").exists()
        with pytest.raises(NoSuchServer):
            penstock.client(name)
        assert not (places / f"{quote(name)}.json").exists()


def test_it_is_listed_and_ended_by_name(deployment):
    listed = cli("list")
    assert deployment.name in listed.stdout and deployment.url in listed.stdout
    assert deployment.api_key not in listed.stdout
    client = penstock.client(deployment.name)
    ended = cli("stop", deployment.name)
    assert ended.returncode == 0 and "has ended" in ended.stdout
    assert not deployment.is_running
    assert "No deployment is running" in cli("list").stdout
    again = cli("stop", deployment.name)
    assert again.returncode == 1 and "No deployment" in again.stderr
    with pytest.raises(NoSuchServer, match="does not answer"):
        client.generate("import os")
    client.terminate_server()


def test_a_killed_deployment_leaves_its_name_free(places):
    penstock.serve(deployment_name="killed", kv_cache_gib=0.2)
    killed = record.find("killed")
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: not killed.is_running)
    assert json.loads((places / "killed.json").read_text())["pid"] == killed.pid
    again = penstock.serve(deployment_name="killed", kv_cache_gib=0.2)
    assert again.generate("import os", max_new_tokens=2)
    assert record.find("killed").pid != killed.pid
    again.terminate_server()
    assert not (places / "killed.json").exists()
