"""What a real server tells of itself, and how an operator steers it."""

import asyncio
import json
import os
import re

import httpx
import pytest

from tests.endtoend.served import eventually, penstock_serve

# so much that it does not end by itself before an operator ends it
LONG = {"prompt": 30 * ["import os\n"], "max_tokens": 2000, "ignore_eos": True}


def metrics(server):
    text = server.client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}


def test_the_use_of_the_machine_is_told_once_the_engine_had_time_to_measure_it(served):
    assert eventually(lambda: "penstock_machine_bytes_read_per_second" in metrics(served))
    body = {"prompt": "def f(x):", "max_tokens": 30, "ignore_eos": True}
    answer = served.client.post("/v1/completions", json=body)
    timing = dict(re.findall(r"([\w-]+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert 0 <= float(timing["queue"]) < float(timing["first-token"]) < float(timing["total"])
    found = metrics(served)
    assert found["penstock_machine_multiply_adds_per_second"] > 1e8
    assert found["penstock_machine_bytes_read_per_second"] > 1e8
    assert found["penstock_mfu_ratio"] > 0 and found["penstock_mbu_ratio"] > 0
    for share in ("bandwidth", "arithmetic"):
        assert found[f"penstock_step_{share}_utilization_count"] >= 30
        assert found[f"penstock_step_{share}_utilization_sum"] > 0
    assert found["penstock_request_queue_time_seconds_count"] >= 1
    assert found["penstock_engine_process_resident_memory_bytes"] > 1e7
    assert found["process_resident_memory_bytes"] > 1e7


def test_cached_prefixes_are_forgotten_when_an_operator_says_so(served):
    body = {"prompt": "import os\n" * 50, "max_tokens": 1}

    def num_cached():
        usage = served.client.post("/v1/completions", json=body).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    num_cached()
    assert num_cached() > 0
    assert served.client.post("/admin/reset_prefix_cache").json() == {"done": True}
    assert num_cached() == 0


async def test_an_operator_ends_a_request_and_the_engine_stops_computing_it(served):
    async with httpx.AsyncClient(base_url=served.url) as client:
        headers = {"x-request-id": "too-long"}
        asked = asyncio.create_task(client.post("/v1/completions", json=LONG, headers=headers))
        while (await client.delete("/admin/requests/too-long")).status_code == 404:
            await asyncio.sleep(0.02)
        answer = await asked
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cancelled")
    assert eventually(lambda: served.metric("num_requests_running") == 0)


def test_what_is_longer_than_may_be_tokenized_is_refused_and_every_log_line_is_json(tmp_path):
    environment = {**os.environ, "PENSTOCK_API_KEY": "secret-key"}
    flags = ("--log-format", "json", "--access-log", "--max-prompt-chars", "20")
    with penstock_serve(tmp_path, *flags, environment=environment) as server:
        headers = {"authorization": "Bearer secret-key", "x-request-id": "mine"}
        for prompt, status in (("x" * 20, 200), ("x" * 21, 400)):
            body = {"prompt": prompt, "max_tokens": 2}
            answer = server.client.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code == status
        assert server.client.get("/v1/models").status_code == 401
        assert server.stop() == 0
        log = server.log.read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    settings = next(line for line in lines if line["message"] == "settings")
    assert settings["device"] == "cpu"
    answered = [line for line in lines if line["message"] == "answered"]
    assert [line["status"] for line in answered] == [200, 400, 401]
    assert [line["key"] for line in answered] == ["api-key-1", "api-key-1", None]
    assert "secret-key" not in log and "xxxx" not in log


@pytest.mark.parametrize("flags", [("--api-key-file", "none.toml"), ("--tls-cert", "none.pem")])
def test_doors_that_cannot_be_locked_as_asked_are_refused_before_a_model_is_loaded(tmp_path, flags):
    with pytest.raises(AssertionError, match="Error:"), penstock_serve(tmp_path, *flags):
        pass
