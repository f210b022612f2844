"""What balancers and Prometheus see."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.vocabulary.messages import EngineStats
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import client_of


async def samples(client):
    """Values by metric name, or by name and labels."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            assert sample.name.startswith("penstock_")
            key = (sample.name, *sample.labels.values()) if sample.labels else sample.name
            found[key] = sample.value
    return found


async def test_a_process_that_answers_is_live(client, llm):
    llm.is_ready = False
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


@pytest.mark.parametrize("path", ["/health/ready", "/health"])
async def test_a_server_is_ready_while_the_engine_s_heart_beats(client, llm, path):
    response = await client.get(path)
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "heartbeat_age_s": 0.1}
    llm.is_ready, llm.heartbeat_age_s = False, 42.0
    response = await client.get(path)
    assert response.status_code == 503
    assert response.json() == {
        "status": "not ready",
        "reason": "no engine is running, or its loop stands still; last heartbeat 42.0 s ago",
        "heartbeat_age_s": 42.0,
    }


async def test_models_are_listed_and_described(client):
    answer = (await client.get("/v1/models")).json()
    (card,) = answer["data"]
    assert answer["object"] == "list"
    assert card.pop("created") > 1_700_000_000
    assert card == {
        "id": "scripted",
        "object": "model",
        "owned_by": "penstock",
        "max_model_len": 1000,
    }
    one = (await client.get("/v1/models/scripted")).json()
    assert (one["id"], one["object"]) == ("scripted", "model")


async def test_a_model_s_name_may_be_a_path():
    async with client_of(ScriptedLLM(), served_model_name="org/name") as client:
        assert (await client.get("/v1/models/org/name")).json()["id"] == "org/name"


async def test_gauges_tell_the_engine_s_present(client, llm):
    llm.stats = EngineStats(num_running=3, num_waiting=4, num_blocks=200, num_blocks_used=50)
    found = await samples(client)
    assert found["penstock_num_requests_running"] == 3
    assert found["penstock_num_requests_waiting"] == 4
    assert found["penstock_kv_cache_usage_perc"] == 0.25


async def test_counters_tell_the_engine_s_past_even_across_restarts(client, llm):
    llm.stats = EngineStats(
        num_steps=9,
        num_prompt_tokens=100,
        num_generated_tokens=50,
        num_preemptions=2,
        num_recomputed_tokens=7,
        prefix_queries=80,
        prefix_hits=60,
    )
    expected = {
        "penstock_prompt_tokens_total": 100,
        "penstock_generation_tokens_total": 50,
        "penstock_num_preemptions_total": 2,
        "penstock_recomputed_tokens_total": 7,
        "penstock_prefix_cache_queries_total": 80,
        "penstock_prefix_cache_hits_total": 60,
    }
    for _ in range(2):
        assert expected.items() <= (await samples(client)).items()
    llm.stats = EngineStats()
    assert expected.items() <= (await samples(client)).items()
    llm.stats = EngineStats(num_steps=1, num_prompt_tokens=5, prefix_queries=5)
    found = await samples(client)
    assert found["penstock_prompt_tokens_total"] == 105
    assert found["penstock_prefix_cache_queries_total"] == 85
    assert found["penstock_generation_tokens_total"] == 50


async def test_a_new_engine_that_is_busier_than_the_old_one_was_is_still_a_new_one(client, llm):
    llm.stats = EngineStats(num_steps=9, num_prompt_tokens=10)
    await samples(client)
    llm.stats = EngineStats(num_steps=2, num_prompt_tokens=30)
    assert (await samples(client))["penstock_prompt_tokens_total"] == 40


async def test_histograms_time_first_tokens_gaps_and_whole_requests():
    llm = ScriptedLLM(Script("Hello", delay_s=0.02))
    async with client_of(llm) as client:
        await client.post("/v1/completions", json={"prompt": ["a", "b"]})
        found = await samples(client)
    assert found["penstock_time_to_first_token_seconds_count"] == 2
    assert found["penstock_inter_token_latency_seconds_count"] == 8
    assert found["penstock_e2e_request_latency_seconds_count"] == 2
    first = found["penstock_time_to_first_token_seconds_sum"]
    gaps = found["penstock_inter_token_latency_seconds_sum"]
    whole = found["penstock_e2e_request_latency_seconds_sum"]
    assert first >= 0.04 and gaps >= 0.16
    assert whole == pytest.approx(first + gaps, rel=0.3)


async def test_requests_are_counted_by_status_and_completions_by_how_they_ended():
    llm = ScriptedLLM(lambda request: Script("Hello", fails_after=request.sampling.seed))
    async with client_of(llm) as client:
        await client.post("/v1/completions", json={"prompt": "a", "n": 2})
        await client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
        await client.post("/v1/completions", json={"prompt": "a", "seed": 1})
        await client.post("/v1/completions", json={"promt": "a"})
        await client.get("/random/" + "x" * 50)
        found = await samples(client)
    finished = "penstock_completions_finished_total"
    assert found[finished, "stop"] == 2
    assert found[finished, "length"] == 1
    assert found[finished, "error"] == 1
    requests = "penstock_http_requests_total"
    assert found[requests, "/v1/completions", "200"] == 2
    assert found[requests, "/v1/completions", "400"] == 1
    assert found[requests, "/v1/completions", "500"] == 1
    assert found[requests, "unmatched", "404"] == 1


async def test_each_server_has_metrics_of_its_own():
    async with client_of(ScriptedLLM()) as one, client_of(ScriptedLLM()) as other:
        await one.post("/v1/completions", json={"prompt": "a"})
        assert (await samples(other))["penstock_e2e_request_latency_seconds_count"] == 0


async def test_the_access_log_has_a_line_per_request_and_nothing_of_its_contents(caplog):
    caplog.set_level("INFO", logger="penstock")
    async with client_of(ScriptedLLM(), access_log=True, api_keys=("key1",)) as client:
        headers = {"authorization": "Bearer key1", "x-request-id": "r1"}
        await client.post("/v1/completions?q=1", json={"prompt": "secret"}, headers=headers)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("request_id=r1 method=POST route=/v1/completions status=200 seconds=0.")
