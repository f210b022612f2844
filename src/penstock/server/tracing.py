"""OpenTelemetry: one span for each request that asks for work, sent over OTLP.

Names are those of the semantic conventions for generative AI, and for times those that vLLM uses:
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import penstock
from penstock.server.visit import Visit
from penstock.vocabulary.errors import SettingsError

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise SettingsError(
        "Sending traces needs packages that are not installed.",
        remedy="pip install 'penstock[otel]'",
    ) from None

_CHAT_ROUTES = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
_SAMPLING = (
    *("max_tokens", "temperature", "top_p", "top_k", "seed"),
    *("presence_penalty", "frequency_penalty"),
)
_NS = 1e9


class Tracing:
    """Sends spans to a collector, from a thread of its own. Contents are never part of them."""

    def __init__(self, endpoint: str, model_name: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "penstock")
        resource = {"service.name": name, "service.version": penstock.__version__}
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._model_name = model_name
        self._provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("penstock", penstock.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, visit: Visit, headers: Mapping[str, str], status: int) -> None:
        """The span of an answered request, below that which its `traceparent` names."""
        ended = time.time_ns()
        operation = "chat" if visit.route in _CHAT_ROUTES else "text_completion"
        span = self._tracer.start_span(
            f"{operation} {self._model_name}",
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            start_time=ended - int(visit.age_s * _NS),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "penstock",
                "gen_ai.request.model": self._model_name,
                "gen_ai.response.model": self._model_name,
                "http.request.method": visit.method,
                "http.route": visit.route,
                "http.response.status_code": status,
                **_attributes(visit),
            },
        )
        if status >= 400 or visit.error:
            span.set_attribute("error.type", visit.error or str(status))
        if status >= 500 or visit.error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def close(self) -> None:
        """Send what has not been sent yet. Takes a while if nobody takes it."""
        self._provider.shutdown()


def _attributes(visit: Visit) -> dict[str, Any]:
    """What is known of it; a request that was refused early has sampled nothing."""
    known: dict[str, Any] = {
        "gen_ai.response.id": visit.request_id,
        "gen_ai.usage.input_tokens": visit.num_prompt_tokens,
        "gen_ai.usage.output_tokens": visit.num_generated_tokens,
        "gen_ai.response.finish_reasons": list(visit.finish_reasons),
        "gen_ai.latency.time_in_queue": visit.queue_s,
        "gen_ai.latency.time_to_first_token": visit.first_token_s,
        "gen_ai.latency.e2e": visit.age_s,
        "penstock.key": visit.key_name,
    }
    if visit.params is not None:
        known["gen_ai.request.choice.count"] = visit.params.n
        known |= {f"gen_ai.request.{name}": getattr(visit.params, name) for name in _SAMPLING}
    return {name: value for name, value in known.items() if value is not None}
