"""Write deploy/grafana/penstock.json, a Grafana dashboard, from the metrics as they are declared.

Usage: python -m scripts.write_dashboard
A test fails while the file differs from what this makes, or asks for a metric that does not exist.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from penstock.server.metrics import Metrics
from penstock.vocabulary.messages import EngineStats

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "penstock.json"

_ROWS = {
    "Requests": (
        "num_requests_running",
        "num_requests_waiting",
        "http_requests",
        "completions_finished",
    ),
    "Latency": (
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
    ),
    "Tokens": (
        "prompt_tokens",
        "generation_tokens",
        "request_prompt_tokens",
        "request_generation_tokens",
        "forced_tokens",
        "recomputed_tokens",
    ),
    "Cache": (
        "kv_cache_usage_perc",
        "num_preemptions",
        "prefix_cache_queries",
        "prefix_cache_hits",
    ),
    "Machine": (
        "mbu_ratio",
        "mfu_ratio",
        "busy_seconds",
        "step_bandwidth_utilization",
        "step_arithmetic_utilization",
        "steps",
    ),
    "Replicas": (
        "replica_up",
        "replica_num_requests_running",
        "replica_num_requests_waiting",
        "replica_kv_cache_usage_perc",
    ),
    "Grammars": ("grammars_compiled", "grammars_refused", "grammar_cache_hits"),
    "Keys": ("key_requests", "key_tokens"),
    "Processes": (
        "engine_process_resident_memory_bytes",
        "engine_process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_cpu_seconds",
        "process_open_fds",
    ),
}
_LABELS = {
    "penstock_http_requests": ("route", "status"),
    "penstock_completions_finished": ("finish_reason",),
    "penstock_key_requests": ("key", "status"),
    "penstock_key_tokens": ("key",),
    "penstock_replica_up": ("replica",),
    "penstock_replica_num_requests_running": ("replica",),
    "penstock_replica_num_requests_waiting": ("replica",),
    "penstock_replica_kv_cache_usage_perc": ("replica",),
}
_WIDTH, _HEIGHT, _PER_LINE = 8, 8, 3
_QUANTILES = (0.5, 0.9, 0.99)
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_OF_INSTANCE = 'instance=~"$instance"'


class _Engine:
    """It has all metrics, whatever their values."""

    is_ready, pid, stats = True, os.getpid(), EngineStats()


def dashboard() -> dict[str, Any]:
    """The whole document."""
    return {
        "title": "Penstock",
        "uid": "penstock",
        "editable": True,
        "refresh": "10s",
        "schemaVersion": 39,
        "tags": ["penstock", "llm"],
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source_variable(), _instance_variable()]},
        "panels": list(_panels()),
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}


def _instance_variable() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Server",
        "type": "query",
        "datasource": _SOURCE,
        "query": "label_values(penstock_build_info, instance)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }


def _panels() -> Iterator[dict[str, Any]]:
    metrics = Metrics(lambda: [_Engine()])
    known = {family.name: family for family in metrics.families()}
    y = number = 0
    for title, names in _ROWS.items():
        number += 1
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place}
        y += 1
        for index, name in enumerate(names):
            number += 1
            family = known.get(f"penstock_{name}") or known[name]
            x, line = index % _PER_LINE * _WIDTH, index // _PER_LINE
            place = {"x": x, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(family)}
        y += -(-len(names) // _PER_LINE) * _HEIGHT


def _panel(family: Metric) -> dict[str, Any]:
    targets = [
        {"refId": chr(65 + number), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        for number, (expr, legend) in enumerate(_queries(family))
    ]
    title = family.name.removeprefix("penstock_").replace("_", " ")
    return {
        "type": "timeseries",
        "title": title[0].upper() + title[1:],
        "description": family.documentation,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": _unit(family), "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
    }


def _queries(family: Metric) -> Iterator[tuple[str, str]]:
    """PromQL and a legend for each line."""
    labels = _LABELS.get(family.name, ())
    legend = " ".join(f"{{{{{label}}}}}" for label in labels) or family.name
    by = f" by ({', '.join(labels)})" if labels else ""
    match family.type:
        case "histogram":
            rate = f"rate({family.name}_bucket{{{_OF_INSTANCE}}}[$__rate_interval])"
            for quantile in _QUANTILES:
                yield (
                    f"histogram_quantile({quantile}, sum by (le) ({rate}))",
                    f"p{quantile * 100:g}",
                )
        case "counter":
            yield f"sum{by} (rate({family.name}_total{{{_OF_INSTANCE}}}[$__rate_interval]))", legend
        case _:
            names = " ".join(f"{{{{{label}}}}}" for label in ("instance", *labels))
            yield f"{family.name}{{{_OF_INSTANCE}}}", names


def _unit(family: Metric) -> str:
    if family.name.endswith(("_perc", "_ratio", "_utilization")):
        return "percentunit"
    if family.name.endswith("_seconds"):  # of counters seconds per second, which are a share too
        return "s" if family.type == "histogram" else "percentunit"
    return "bytes" if family.name.endswith("_bytes") else "short"


def main() -> None:
    """Write the file."""
    DASHBOARD.parent.mkdir(parents=True, exist_ok=True)
    DASHBOARD.write_text(json.dumps(dashboard(), indent=1) + "\n")


if __name__ == "__main__":
    main()
