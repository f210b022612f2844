"""What the server tells Prometheus: declared here or in `metrics_engine`, and nowhere else."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

import penstock
from penstock.server.engine_front import Replica
from penstock.server.metrics_engine import EngineCollector, EngineProcessCollector
from penstock.server.metrics_vllm import aliases
from penstock.server.visit import Visit
from penstock.vocabulary.messages import Step
from penstock.vocabulary.results import Delta

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
INTER_TOKEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1, 5)
REQUEST_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
SHARE_BUCKETS = (0.02, 0.05, *(tenths / 10 for tenths in range(1, 11)))
TOKEN_BUCKETS = tuple(scale * 10**power for power in range(6) for scale in (1, 2, 5))


class Metrics:
    """The metrics of one server, in a registry of their own.

    `vllm_model` is the name to give the model under vLLM's names; None leaves these out.
    """

    def __init__(
        self,
        replicas: Callable[[], Sequence[Replica]],
        *,
        vllm_model: str | None = None,
    ) -> None:
        self._vllm_model = vllm_model
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(replicas))
        ProcessCollector(registry=self._registry)
        self._registry.register(EngineProcessCollector(replicas))
        Gauge(
            "penstock_build_info",
            "Always 1; the labels say what runs.",
            ("version", "python"),
            registry=self._registry,
        ).labels(penstock.__version__, platform.python_version()).set(1)
        self._declare_times()
        self._declare_shares()
        self._declare_counts()

    def _declare_times(self) -> None:
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
        self.queue_time = self._histogram(
            "request_queue_time_seconds",
            "From handing a prompt to the engine to its first step.",
            FIRST_TOKEN_BUCKETS_S,
        )
        self.prompt_time = self._histogram(
            "request_prefill_time_seconds",
            "From the first step of a prompt to its first token.",
            FIRST_TOKEN_BUCKETS_S,
        )
        self.output_time = self._histogram(
            "request_decode_time_seconds",
            "From the first token of a prompt's completions to the last.",
            REQUEST_BUCKETS_S,
        )

    def _declare_shares(self) -> None:
        self._bandwidth = self._histogram(
            "step_bandwidth_utilization",
            "Share of the machine's memory bandwidth that a step used (MBU).",
            SHARE_BUCKETS,
        )
        self._arithmetic = self._histogram(
            "step_arithmetic_utilization",
            "Share of the machine's arithmetic that a step used (MFU).",
            SHARE_BUCKETS,
        )

    def _declare_counts(self) -> None:
        self.prompt_tokens = self._histogram(
            "request_prompt_tokens", "Tokens of a prompt.", TOKEN_BUCKETS
        )
        self.generation_tokens = self._histogram(
            "request_generation_tokens", "Tokens of a prompt's completions.", TOKEN_BUCKETS
        )
        self._finished = self._counter(
            "completions_finished", "Completions by how they ended.", ("finish_reason",)
        )
        self._responses = self._counter(
            "http_requests",
            "HTTP requests answered; status 499 means that the client left first.",
            ("route", "status"),
        )
        self._of_keys = self._counter(
            "key_requests", "HTTP requests by the API key that they came with.", ("key", "status")
        )
        self._tokens_of_keys = self._counter(
            "key_tokens", "Tokens of prompts and completions by API key.", ("key",)
        )

    def stepped(self, step: Step) -> None:
        """The engine has computed a step."""
        if step.bandwidth_share is not None and step.arithmetic_share is not None:
            self._bandwidth.observe(step.bandwidth_share)
            self._arithmetic.observe(step.arithmetic_share)

    def finished(self, reason: str, count: int = 1) -> None:
        """Completions have ended for this reason."""
        self._finished.labels(reason).inc(count)

    def answered(
        self, route: str, status: int, *, key: str | None = None, num_tokens: int = 0
    ) -> None:
        """An HTTP request has been answered, or given up; `key` is the name of its API key."""
        self._responses.labels(route, str(status)).inc()
        if key is not None:
            self._of_keys.labels(key, str(status)).inc()
            self._tokens_of_keys.labels(key).inc(num_tokens)

    def exposition(self) -> bytes:
        """All metrics, as Prometheus wants to read them."""
        return generate_latest(_Collected(self.families()))

    def families(self) -> list[Metric]:
        """All metrics with their present values."""
        families = list(self._registry.collect())
        if self._vllm_model is not None:
            families += aliases(families, self._vllm_model)
        return families

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(f"penstock_{name}", text, buckets=buckets, registry=self._registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"penstock_{name}", text, labels, registry=self._registry)


class _Collected(Collector):
    """What has been collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


class GenerationClock:
    """Times one prompt's completions, which a visit has just handed to the engine."""

    def __init__(
        self, metrics: Metrics, visit: Visit, *, num_completions: int, num_prompt_tokens: int
    ) -> None:
        self._metrics = metrics
        self._visit = visit
        self._submitted_at = time.monotonic()
        self._first_at = 0.0
        self._last = [0.0] * num_completions
        self._num_tokens = 0
        metrics.prompt_tokens.observe(num_prompt_tokens)

    def saw(self, delta: Delta) -> None:
        """Note the arrival of a delta. Several tokens at once share the time since the last one."""
        if not delta.token_ids:
            return
        now = time.perf_counter()
        self._num_tokens += len(delta.token_ids)
        if not self._first_at:
            self._first_at = now
            self._saw_first(delta, now - self._visit.arrived)
        last = self._last[delta.index]
        if last:
            self._metrics.inter_token_latency.observe((now - last) / len(delta.token_ids))
        self._last[delta.index] = now

    def _saw_first(self, delta: Delta, first_token_s: float) -> None:
        visit, metrics = self._visit, self._metrics
        metrics.time_to_first_token.observe(first_token_s)
        if visit.first_token_s is None:
            visit.first_token_s = first_token_s
        if delta.admitted_at is not None:
            queue_s = max(0.0, delta.admitted_at - self._submitted_at)
            metrics.queue_time.observe(queue_s)
            metrics.prompt_time.observe(max(0.0, time.monotonic() - delta.admitted_at))
            if visit.queue_s is None:
                visit.queue_s = queue_s

    def stop(self) -> None:
        """All completions have ended."""
        now = time.perf_counter()
        self._metrics.request_latency.observe(now - self._visit.arrived)
        self._metrics.generation_tokens.observe(self._num_tokens)
        if self._first_at:
            self._metrics.output_time.observe(now - self._first_at)
