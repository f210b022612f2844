"""What the server and its engine tell Prometheus."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.vocabulary.messages import EngineStats
from penstock.vocabulary.results import Delta

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
INTER_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1, 5)
REQUEST_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

_COUNTERS = {
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
}


class EngineCollector(Collector):
    """The engine's numbers at the scrape. Counters survive a restart of the engine."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats
        self._last = EngineStats()
        self._totals = dict.fromkeys(_COUNTERS, 0)

    def describe(self) -> Iterator[Metric]:
        """Names without values, so that registering does not ask the engine."""
        return self._families(EngineStats(), dict.fromkeys(_COUNTERS, 0))

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        restarted = stats.num_steps < self._last.num_steps
        for name in _COUNTERS:
            before = 0 if restarted else getattr(self._last, name)
            self._totals[name] += max(0, getattr(stats, name) - before)
        self._last = stats
        return self._families(stats, self._totals)

    def _families(self, stats: EngineStats, totals: dict[str, int]) -> Iterator[Metric]:
        yield _gauge("num_requests_running", "Sequences being computed.", stats.num_running)
        yield _gauge("num_requests_waiting", "Sequences not yet admitted.", stats.num_waiting)
        usage = stats.num_blocks_used / stats.num_blocks if stats.num_blocks else 0.0
        yield _gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1 means all.", usage)
        for name, (metric, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"penstock_{metric}", text, value=totals[name])


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(stats))
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "From the arrival of a request to its first token.",
            FIRST_TOKEN_BUCKETS_S,
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds",
            "From one token of a completion to the next.",
            INTER_TOKEN_BUCKETS_S,
        )
        self.request_latency = self._histogram(
            "e2e_request_latency_seconds",
            "From the arrival of a request to its last token.",
            REQUEST_BUCKETS_S,
        )
        self._finished = self._counter(
            "completions_finished", "Completions by how they ended.", ("finish_reason",)
        )
        self._responses = self._counter(
            "http_requests",
            "HTTP requests answered; status 499 means that the client left first.",
            ("route", "status"),
        )

    def finished(self, reason: str, count: int = 1) -> None:
        """Completions have ended for this reason."""
        self._finished.labels(reason).inc(count)

    def answered(self, route: str, status: int) -> None:
        """An HTTP request has been answered, or given up."""
        self._responses.labels(route, str(status)).inc()

    def exposition(self) -> bytes:
        """All metrics, as Prometheus wants to read them."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"penstock_{name}", text, buckets=buckets, registry=self._registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"penstock_{name}", text, labels, registry=self._registry)


class GenerationClock:
    """Times the tokens of one prompt's completions. `arrived` is by `time.perf_counter`."""

    def __init__(self, metrics: Metrics, arrived: float, num_completions: int) -> None:
        self._metrics = metrics
        self._arrived = arrived
        self._last = [0.0] * num_completions
        self._is_first = True

    def saw(self, delta: Delta) -> None:
        """Note the arrival of a delta. Several tokens at once share the time since the last one."""
        if not delta.token_ids:
            return
        now = time.perf_counter()
        if self._is_first:
            self._is_first = False
            self._metrics.time_to_first_token.observe(now - self._arrived)
        last = self._last[delta.index]
        if last:
            self._metrics.inter_token_latency.observe((now - last) / len(delta.token_ids))
        self._last[delta.index] = now

    def stop(self) -> None:
        """All completions have ended."""
        self._metrics.request_latency.observe(time.perf_counter() - self._arrived)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"penstock_{name}", text, value=value)
