"""The engines' part of the metrics, from their statistics at the moment of the scrape.

What has no label is told of all replicas together, as if they were one engine.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.engine.machine_use import MachineLimits, machine_use
from penstock.engine.replicas import summed
from penstock.server.engine_front import Replica
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


class _Span(NamedTuple):
    """One engine at the scrape before this one, and now."""

    before: EngineStats
    now: EngineStats


class EngineCollector(Collector):
    """The engines' numbers at the scrape. Counters survive a restart of an engine."""

    def __init__(self, replicas: Callable[[], Sequence[Replica]]) -> None:
        self._replicas = replicas
        self._last: dict[int, EngineStats] = {}
        self._totals: dict[str, float] = dict.fromkeys(_COUNTERS, 0)

    def describe(self) -> Iterator[Metric]:
        """Names without values, so that registering does not ask the engines."""
        return _families([], [], dict.fromkeys(_COUNTERS, 0))

    def collect(self) -> Iterator[Metric]:
        replicas = self._replicas()
        spans = [self._span(number, replica.stats) for number, replica in enumerate(replicas)]
        for name in _COUNTERS:
            for before, now in spans:
                self._totals[name] += max(0, getattr(now, name) - getattr(before, name))
        return _families(replicas, spans, self._totals)

    def _span(self, number: int, now: EngineStats) -> _Span:
        before, self._last[number] = self._last.get(number, EngineStats()), now
        if now.num_steps < before.num_steps:  # it is another engine
            before = EngineStats()
        return _Span(before, now)


class EngineProcessCollector(Collector):
    """What the engines' processes take; with the label `replica` where there are several."""

    def __init__(self, replicas: Callable[[], Sequence[Replica]]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        replicas = self._replicas()
        for number, replica in enumerate(replicas):
            labels = {"replica": str(number)} if len(replicas) > 1 else {}
            for family in _process_metrics(replica.pid):
                empty = Metric(family.name, family.documentation, family.type)
                known = families.setdefault(family.name, empty)
                known.samples += [sample._replace(labels=labels) for sample in family.samples]
        yield from families.values()


def _process_metrics(pid: int | None) -> Iterator[Metric]:
    if pid is not None:
        yield from ProcessCollector("penstock_engine", lambda: pid, registry=None).collect()


def _families(
    replicas: Sequence[Replica], spans: Sequence[_Span], totals: dict[str, float]
) -> Iterator[Metric]:
    stats = summed(span.now for span in spans)
    yield _gauge("num_requests_running", "Sequences being computed.", stats.num_running)
    yield _gauge("num_requests_waiting", "Sequences not yet admitted.", stats.num_waiting)
    yield _gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1 means all.", _usage(stats))
    yield _gauge("kv_blocks", "KV blocks there are.", stats.num_blocks)
    for name, (metric, text) in _COUNTERS.items():
        yield CounterMetricFamily(f"penstock_{metric}", text, value=totals[name])
    yield from _machine_use(spans)
    yield from _each(replicas)


def _each(replicas: Sequence[Replica]) -> Iterator[Metric]:
    """Where replicas differ."""
    yield _gauge("replicas", "Engines that there should be.", len(replicas))
    up = _of_replica("up", "1 while this engine answers.")
    running = _of_replica("num_requests_running", "Sequences that it computes.")
    waiting = _of_replica("num_requests_waiting", "Sequences that it has not admitted.")
    usage = _of_replica("kv_cache_usage_perc", "Share of its KV blocks in use.")
    for number, replica in enumerate(replicas):
        labels, stats = [str(number)], replica.stats
        up.add_metric(labels, replica.is_ready)
        running.add_metric(labels, stats.num_running)
        waiting.add_metric(labels, stats.num_waiting)
        usage.add_metric(labels, _usage(stats))
    yield from (up, running, waiting, usage)


def _machine_use(spans: Sequence[_Span]) -> Iterator[Metric]:
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
    measured = [(span, limits) for span in spans if (limits := _limits(span.now))]
    if measured:
        most_arithmetic.add_metric([], sum(limits.multiply_adds_per_s for _, limits in measured))
        most_bandwidth.add_metric([], sum(limits.bytes_read_per_s for _, limits in measured))
        uses = [
            machine_use(span.before, span.now, limits)
            for span, limits in measured
            if span.now.busy_s > span.before.busy_s
        ]
        busy_s = sum(use.busy_s for use in uses) or 1.0
        arithmetic.add_metric([], sum(use.busy_s * use.arithmetic_share for use in uses) / busy_s)
        bandwidth.add_metric([], sum(use.busy_s * use.bandwidth_share for use in uses) / busy_s)
    yield from (arithmetic, bandwidth, most_arithmetic, most_bandwidth)


def _limits(stats: EngineStats) -> MachineLimits | None:
    if not stats.limit_bytes_per_s:
        return None
    return MachineLimits(
        multiply_adds_per_s=stats.limit_multiply_adds_per_s,
        bytes_read_per_s=stats.limit_bytes_per_s,
    )


def _usage(stats: EngineStats) -> float:
    return stats.num_blocks_used / stats.num_blocks if stats.num_blocks else 0.0


def _gauge(name: str, text: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", text, value=value)


def _of_replica(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_replica_{name}", text, labels=["replica"])
