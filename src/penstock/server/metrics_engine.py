"""The engine's part of the metrics, from its statistics at the moment of the scrape."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.engine.machine_use import MachineLimits, machine_use
from penstock.vocabulary.messages import EngineStats

_COUNTERS = {
    "num_steps": ("steps", "Steps computed."),
    "num_prompt_tokens": ("prompt_tokens", "Prompt tokens taken in."),
    "num_generated_tokens": ("generation_tokens", "Tokens generated."),
    "num_preemptions": ("num_preemptions", "Sequences that had to give up their KV blocks."),
    "num_recomputed_tokens": (
        "recomputed_tokens",
        "Tokens computed once more after a preemption; no part of prefix_cache_hits.",
    ),
    "prefix_queries": ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    "prefix_hits": ("prefix_cache_hits", "Prompt tokens found there."),
    "num_forced_tokens": (
        "forced_tokens",
        "Generated tokens that a grammar forced, taken without a step for each.",
    ),
    "num_grammars_compiled": ("grammars_compiled", "Grammars and JSON schemas compiled."),
    "num_grammars_refused": ("grammars_refused", "Those that were wrong, or cost too much."),
    "num_grammars_reused": ("grammar_cache_hits", "Requests whose grammar had been compiled."),
    "num_multiply_adds": ("multiply_adds", "Multiplications with an addition, by the model."),
    "num_bytes_read": ("bytes_read", "Bytes of weights, keys and values read from memory."),
    "busy_s": ("busy_seconds", "Time in which the engine was computing."),
}


class EngineCollector(Collector):
    """The engine's numbers at the scrape. Counters survive a restart of the engine."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats
        self._last = EngineStats()
        self._totals: dict[str, float] = dict.fromkeys(_COUNTERS, 0)

    def describe(self) -> Iterator[Metric]:
        """Names without values, so that registering does not ask the engine."""
        return _families(EngineStats(), EngineStats(), dict.fromkeys(_COUNTERS, 0))

    def collect(self) -> Iterator[Metric]:
        stats, before = self._stats(), self._last
        if stats.num_steps < before.num_steps:  # it is another engine
            before = EngineStats()
        for name in _COUNTERS:
            self._totals[name] += max(0, getattr(stats, name) - getattr(before, name))
        self._last = stats
        return _families(before, stats, self._totals)


def _families(
    before: EngineStats, stats: EngineStats, totals: dict[str, float]
) -> Iterator[Metric]:
    yield _gauge("num_requests_running", "Sequences being computed.", stats.num_running)
    yield _gauge("num_requests_waiting", "Sequences not yet admitted.", stats.num_waiting)
    usage = stats.num_blocks_used / stats.num_blocks if stats.num_blocks else 0.0
    yield _gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1 means all.", usage)
    yield _gauge("kv_blocks", "KV blocks there are.", stats.num_blocks)
    for name, (metric, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"penstock_{metric}", text, value=totals[name])
    yield from _machine_use(before, stats)


def _machine_use(before: EngineStats, stats: EngineStats) -> Iterator[Metric]:
    """Shares of the machine's limits since the last scrape; no samples before they are measured."""
    arithmetic = _gauge(
        "mfu_ratio", "Share of the machine's arithmetic used while busy since the last scrape."
    )
    bandwidth = _gauge(
        "mbu_ratio", "Share of its memory bandwidth used while busy since the last scrape."
    )
    most_arithmetic = _gauge(
        "machine_multiply_adds_per_second", "What the machine was measured to be capable of."
    )
    most_bandwidth = _gauge("machine_bytes_read_per_second", "Likewise, from memory.")
    if stats.limit_bytes_per_s:
        limits = MachineLimits(
            multiply_adds_per_s=stats.limit_multiply_adds_per_s,
            bytes_read_per_s=stats.limit_bytes_per_s,
        )
        most_arithmetic.add_metric([], limits.multiply_adds_per_s)
        most_bandwidth.add_metric([], limits.bytes_read_per_s)
        was_busy = stats.busy_s > before.busy_s
        use = machine_use(before, stats, limits) if was_busy else None
        arithmetic.add_metric([], use.arithmetic_share if use else 0.0)
        bandwidth.add_metric([], use.bandwidth_share if use else 0.0)
    yield from (arithmetic, bandwidth, most_arithmetic, most_bandwidth)


def _gauge(name: str, text: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", text, value=value)
