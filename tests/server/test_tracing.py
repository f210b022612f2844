"""Traces as a collector receives them: over HTTP, in OTLP's protobuf."""

import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import listening

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"prompt": "secret question", "max_tokens": 5, "temperature": 0.5, "n": 2}


class Collector(ThreadingHTTPServer):
    """Takes what is exported, and remembers it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self):
        return [
            (resource.resource, span)
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def traced(llm):
    """A server and its collector, which has everything once the block has ended."""
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever).start()
        try:
            with listening(llm, otlp_endpoint=collector.url, served_model_name="m") as url:
                yield url, collector
        finally:
            collector.shutdown()


def told(values):
    """Attributes as a dict."""

    def plain(value):
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(each) for each in found.values] if kind == "array_value" else found

    return {each.key: plain(each.value) for each in values}


def test_a_request_is_a_span_below_the_one_that_its_client_names():
    llm = ScriptedLLM(Script("secret answer", queued_s=0.0))
    with traced(llm) as (url, collector):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r1"}
        assert httpx.post(f"{url}/v1/completions", json=BODY, headers=headers).status_code == 200
        httpx.get(f"{url}/health")
        httpx.get(f"{url}/metrics")
    ((resource, span),) = collector.spans
    assert told(resource.attributes)["service.name"] == "penstock"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "text_completion m"
    assert span.kind == span.SPAN_KIND_SERVER
    attributes = told(span.attributes)
    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert attributes.pop("gen_ai.latency.e2e") == pytest.approx(seconds, abs=0.05)
    assert 0 <= attributes.pop("gen_ai.latency.time_in_queue") < seconds
    assert 0 < attributes.pop("gen_ai.latency.time_to_first_token") < seconds
    assert attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "penstock",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.response.id": "r1",
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 0,
        "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.usage.input_tokens": 15,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.response.finish_reasons": ["length", "length"],
        "http.request.method": "POST",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
    }


def test_failures_are_spans_too_and_contents_are_in_none():
    llm = ScriptedLLM(Script("secret answer", fails_after=2))
    with traced(llm) as (url, collector):
        message = [{"role": "user", "content": "secret question"}]
        httpx.post(f"{url}/v1/chat/completions", json={"messages": message, "stream": True})
        httpx.post(f"{url}/v1/completions", json=BODY)
        httpx.post(f"{url}/v1/completions", json={"prompt": "secret question", "n": -1})
    found = {
        told(span.attributes)["http.response.status_code"]: span for _, span in collector.spans
    }
    assert sorted(found) == [200, 400, 500]
    assert found[200].name == "chat m"
    assert told(found[200].attributes)["error.type"] == "engine_failed"
    assert told(found[400].attributes)["error.type"] == "400"
    codes = {status: span.status.code for status, span in found.items()}
    assert codes == {200: 2, 400: 0, 500: 2}
    assert len({span.trace_id for span in found.values()}) == 3
    assert b"secret" not in b"".join(each.SerializeToString() for each in collector.received)


def test_a_client_that_says_not_to_sample_is_heard():
    with traced(ScriptedLLM()) as (url, collector):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        httpx.post(f"{url}/v1/completions", json=BODY, headers=headers)
    assert collector.spans == []


def test_an_endpoint_that_is_none_is_refused():
    for wrong in ("localhost:4318", "ftp://a", "http://"):
        with pytest.raises(SettingsError, match="no URL of a collector"):
            ServerSettings(otlp_endpoint=wrong)


def test_without_the_packages_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from penstock.server.settings import ServerSettings\n"
        "ServerSettings()\n"
        "ServerSettings(otlp_endpoint='http://127.0.0.1:4318')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("pip install 'penstock[otel]'\n")


def test_a_server_without_traces_loads_nothing_of_it():
    code = "import sys, penstock.server.serve; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
