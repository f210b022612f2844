"""Our metrics under vLLM's names: its dashboards and autoscalers find what they look for."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

ALIASES = {
    "num_requests_running": ("num_requests_running",),
    "num_requests_waiting": ("num_requests_waiting",),
    "kv_cache_usage_perc": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    "num_preemptions": ("num_preemptions",),
    "prompt_tokens": ("prompt_tokens",),
    "generation_tokens": ("generation_tokens",),
    "prefix_cache_queries": ("prefix_cache_queries", "gpu_prefix_cache_queries"),
    "prefix_cache_hits": ("prefix_cache_hits", "gpu_prefix_cache_hits"),
    "time_to_first_token_seconds": ("time_to_first_token_seconds",),
    "inter_token_latency_seconds": ("inter_token_latency_seconds", "time_per_output_token_seconds"),
    "e2e_request_latency_seconds": ("e2e_request_latency_seconds",),
    "request_queue_time_seconds": ("request_queue_time_seconds",),
    "request_prefill_time_seconds": ("request_prefill_time_seconds",),
    "request_decode_time_seconds": ("request_decode_time_seconds",),
    "request_prompt_tokens": ("request_prompt_tokens",),
    "request_generation_tokens": ("request_generation_tokens",),
    "completions_finished": ("request_success",),
}
"""Of a metric here, the names there. Both mean the same."""

_LABELS = {"finish_reason": "finished_reason"}
_REASONS = {"cancelled": "abort"}


def aliases(families: Sequence[Metric], model_name: str) -> Iterator[Metric]:
    """Those families that vLLM has too, once more under its names and with its label."""
    for family in families:
        for name in ALIASES.get(family.name.removeprefix("penstock_"), ()):
            alias = Metric(f"vllm:{name}", family.documentation, family.type)
            alias.samples = [
                _renamed(sample, family.name, alias.name, model_name) for sample in family.samples
            ]
            yield alias


def _renamed(sample: Sample, ours: str, theirs: str, model_name: str) -> Sample:
    labels = {
        _LABELS.get(name, name): _REASONS.get(value, value) for name, value in sample.labels.items()
    }
    return sample._replace(
        name=theirs + sample.name.removeprefix(ours), labels={"model_name": model_name, **labels}
    )
