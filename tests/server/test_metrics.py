"""What Prometheus sees, in the words of its own parser."""

import asyncio
import json
import os
import platform
import re
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import penstock
from penstock.server.metrics_vllm import ALIASES
from penstock.vocabulary.messages import EngineStats
from tests.server.scripted_llm import Script, ScriptedLLM, ScriptedReplica
from tests.server.serving import client_of, let_pass
from tests.server.test_page import step


async def samples(client):
    """Values by metric name, or by name and labels."""
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            assert sample.name.startswith(("penstock_", "vllm:", "process_"))
            key = (sample.name, *sample.labels.values()) if sample.labels else sample.name
            found[key] = sample.value
    return found


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
        began = time.perf_counter()
        await client.post("/v1/completions", json={"prompt": ["a", "b"]})
        took = time.perf_counter() - began
        found = await samples(client)
    assert found["penstock_time_to_first_token_seconds_count"] == 2
    assert found["penstock_inter_token_latency_seconds_count"] == 8
    assert found["penstock_e2e_request_latency_seconds_count"] == 2
    first = found["penstock_time_to_first_token_seconds_sum"]
    gaps = found["penstock_inter_token_latency_seconds_sum"]
    whole = found["penstock_e2e_request_latency_seconds_sum"]
    assert first >= 0.04 and gaps >= 0.16
    assert 0.99 * (first + gaps) < whole < 2 * took


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


# -- the engine's machine ----------------------------------------------------------------------


async def test_machine_use_is_told_once_the_machine_s_limits_are_known(client, llm):
    llm.stats = EngineStats(num_steps=1, num_bytes_read=100, num_multiply_adds=50, busy_s=1.0)
    found = await samples(client)
    assert found["penstock_bytes_read_total"] == 100
    assert found["penstock_busy_seconds_total"] == 1
    assert "penstock_mbu_ratio" not in found
    limits = {"limit_bytes_per_s": 400.0, "limit_multiply_adds_per_s": 100.0}
    llm.stats = EngineStats(
        num_steps=2, num_bytes_read=700, num_multiply_adds=100, busy_s=3.0, **limits
    )
    found = await samples(client)
    assert found["penstock_machine_bytes_read_per_second"] == 400
    assert found["penstock_machine_multiply_adds_per_second"] == 100
    assert found["penstock_mbu_ratio"] == pytest.approx(600 / 2 / 400)
    assert found["penstock_mfu_ratio"] == pytest.approx(50 / 2 / 100)
    assert (await samples(client))["penstock_mbu_ratio"] == 0  # nothing was done since


async def test_each_step_counts_by_the_share_of_the_machine_that_it_used(client, llm):
    llm.steps.add(step(1))  # before the limits were measured
    llm.steps.add(step(2, bandwidth_share=0.75, arithmetic_share=0.25))
    llm.steps.add(step(3, bandwidth_share=1.25, arithmetic_share=0.03))  # out of a cache
    found = await samples(client)
    bandwidth, arithmetic = (
        f"penstock_step_{name}_utilization" for name in ("bandwidth", "arithmetic")
    )
    assert found[f"{bandwidth}_count"] == found[f"{arithmetic}_count"] == 2
    assert found[f"{bandwidth}_sum"] == 2.0
    assert found[f"{bandwidth}_bucket", "0.7"] == 0
    assert found[f"{bandwidth}_bucket", "0.8"] == found[f"{bandwidth}_bucket", "1.0"] == 1
    assert found[f"{arithmetic}_bucket", "0.05"] == 1


async def test_it_says_what_runs_and_what_its_processes_take(llm):
    llm.pid = os.getpid()
    async with client_of(llm) as client:
        found = await samples(client)
        python = platform.python_version()
        assert found["penstock_build_info", python, penstock.__version__] == 1
        assert found["process_resident_memory_bytes"] > 1e6
        assert found["penstock_engine_process_resident_memory_bytes"] > 1e6
        llm.pid = None
        found = await samples(client)
    assert "penstock_engine_process_resident_memory_bytes" not in found


# -- times and keys ----------------------------------------------------------------------------


async def test_waiting_in_the_queue_is_told_from_being_computed():
    llm = ScriptedLLM(Script("Hello", delay_s=0.02, queued_s=0.01))
    async with client_of(llm) as client:
        answer = await client.post("/v1/completions", json={"prompt": "abc", "max_tokens": 3})
        found = await samples(client)
    assert found["penstock_request_queue_time_seconds_count"] == 1
    assert found["penstock_request_queue_time_seconds_sum"] > 0.009
    assert found["penstock_request_prefill_time_seconds_sum"] >= 0.005
    assert found["penstock_request_decode_time_seconds_sum"] >= 0.04
    assert found["penstock_request_prompt_tokens_sum"] == 3
    assert found["penstock_request_generation_tokens_sum"] == 3
    timing = dict(re.findall(r"([\w-]+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert list(timing) == ["queue", "first-token", "total"]
    queue, first, total = map(float, timing.values())
    assert 9 < queue <= first and first + 40 <= total


async def test_a_stream_tells_its_times_up_to_the_first_event(llm):
    async with client_of(llm) as client:
        answer = await client.post("/v1/completions", json={"prompt": "a", "stream": True})
        models = await client.get("/v1/models")
    assert "first-token;dur=" in answer.headers["server-timing"]
    assert re.fullmatch(r"total;dur=[\d.]+", models.headers["server-timing"])


async def test_requests_and_tokens_are_counted_by_key(llm, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "alice", "key": "a"}]}))
    async with client_of(llm, api_key_file=str(path), open_metrics=True) as client:
        for key in ("a", "a", "wrong"):
            headers = {"authorization": f"Bearer {key}"}
            await client.post("/v1/completions", json={"prompt": "abc"}, headers=headers)
        found = await samples(client)
    assert found["penstock_key_requests_total", "alice", "200"] == 2
    assert found["penstock_key_tokens_total", "alice"] == 2 * (3 + len("Hello!"))


# -- several engines ---------------------------------------------------------------------------


def busy(num_steps: int, **fields) -> EngineStats:
    return EngineStats(num_steps=num_steps, **fields)


async def test_what_several_engines_do_is_added_up_and_told_of_each(client, llm):
    one = ScriptedReplica(
        stats=busy(1, num_running=3, num_waiting=4, num_blocks=100, num_blocks_used=50)
    )
    other = ScriptedReplica(
        is_ready=False, stats=busy(1, num_running=1, num_blocks=100, num_blocks_used=10)
    )
    llm.replicas = [one, other]
    found = await samples(client)
    assert found["penstock_num_requests_running"] == 4
    assert found["penstock_num_requests_waiting"] == 4
    assert found["penstock_kv_blocks"] == 200
    assert found["penstock_kv_cache_usage_perc"] == pytest.approx(0.3)
    assert found["vllm:num_requests_running", "scripted"] == 4
    assert found["penstock_replicas"] == 2
    assert [found["penstock_replica_up", number] for number in "01"] == [1, 0]
    assert [found["penstock_replica_num_requests_running", number] for number in "01"] == [3, 1]
    assert [found["penstock_replica_kv_cache_usage_perc", number] for number in "01"] == [0.5, 0.1]


async def test_counters_survive_the_restart_of_one_while_the_others_count_on(client, llm):
    one, other = ScriptedReplica(stats=busy(9, num_prompt_tokens=100)), ScriptedReplica()
    llm.replicas = [one, other]
    other.stats = busy(90, num_prompt_tokens=10)
    assert (await samples(client))["penstock_prompt_tokens_total"] == 110
    one.stats, other.stats = busy(0), busy(200, num_prompt_tokens=30)
    assert (await samples(client))["penstock_prompt_tokens_total"] == 130
    one.stats = busy(2, num_prompt_tokens=5)
    assert (await samples(client))["penstock_prompt_tokens_total"] == 135


async def test_the_use_of_the_machine_is_that_of_the_engines_that_were_busy(client, llm):
    limits = {"limit_bytes_per_s": 100.0, "limit_multiply_adds_per_s": 10.0}
    one, other = ScriptedReplica(stats=busy(0, **limits)), ScriptedReplica(stats=busy(0, **limits))
    llm.replicas = [one, other]
    await samples(client)
    one.stats = busy(1, num_bytes_read=80, num_multiply_adds=2, busy_s=1.0, **limits)
    other.stats = busy(1, num_bytes_read=120, num_multiply_adds=12, busy_s=3.0, **limits)
    found = await samples(client)
    assert found["penstock_machine_bytes_read_per_second"] == 200
    assert found["penstock_mbu_ratio"] == pytest.approx((80 + 120) / 4 / 100)
    assert found["penstock_mfu_ratio"] == pytest.approx((2 + 12) / 4 / 10)


async def test_the_processes_of_several_engines_are_told_apart(client, llm):
    llm.replicas = [ScriptedReplica(pid=os.getpid()), ScriptedReplica(), ScriptedReplica(pid=1)]
    found = await samples(client)
    name = "penstock_engine_process_resident_memory_bytes"
    assert found[name, "0"] > 1e6 and (name, "2") in found and (name, "1") not in found


# -- under vLLM's names ------------------------------------------------------------------------


async def test_vllm_s_names_say_the_same(llm):
    llm.stats = EngineStats(num_steps=1, num_running=3, num_prompt_tokens=7, prefix_hits=2)
    async with client_of(llm, served_model_name="m") as client:
        await client.post("/v1/completions", json={"prompt": "abc"})
        found = await samples(client)
    assert found["vllm:num_requests_running", "m"] == 3
    assert found["vllm:prompt_tokens_total", "m"] == 7
    assert found["vllm:gpu_prefix_cache_hits_total", "m"] == 2
    assert found["vllm:request_success_total", "stop", "m"] == 1
    ours = found["penstock_time_to_first_token_seconds_bucket", "1.0"]
    assert found["vllm:time_to_first_token_seconds_bucket", "1.0", "m"] == ours == 1
    assert found["vllm:time_per_output_token_seconds_count", "m"] == len("Hello!") - 1
    families = {key[0] if isinstance(key, tuple) else key for key in found}
    wanted = {f"vllm:{name}" for names in ALIASES.values() for name in names}
    missing = {name for name in wanted if not {name, f"{name}_total", f"{name}_count"} & families}
    assert not missing


async def test_vllm_calls_a_cancelled_completion_aborted():
    llm = ScriptedLLM(Script("Hello", hangs_after=1))
    async with client_of(llm, request_timeout_s=600) as client:
        asked = asyncio.create_task(client.post("/v1/completions", json={"prompt": "a"}))
        while not llm.in_flight:
            await asyncio.sleep(0.001)
        let_pass(600)
        await asked
        found = await samples(client)
    assert found["penstock_completions_finished_total", "cancelled"] == 1
    assert found["vllm:request_success_total", "abort", "scripted"] == 1


async def test_vllm_s_names_can_be_left_out(llm):
    async with client_of(llm, vllm_metrics=False) as client:
        assert "vllm:" not in (await client.get("/metrics")).text
