"""How the server listens and what it allows."""

import importlib
import re
import ssl
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from penstock.server.keys import KeyRing, key_ring
from penstock.text.parsing.choice import (
    AUTO,
    REASONING_PARSERS,
    TOOL_PARSERS,
    check_parser_names,
)
from penstock.vocabulary.errors import SettingsError
from penstock.vocabulary.sampling_params import MAX_LOGPROBS, MAX_SAMPLES, MAX_STOP_STRINGS

AZUREML_TASKS = ("text-generation", "chat-completion")
_PATH = re.compile(r"/[\w.~:/-]*")
_TIMES = ("read_timeout_s", "write_timeout_s", "request_timeout_s")
_ENGINES_OWN = {
    "max_best_of": MAX_SAMPLES,
    "max_stop_sequences": MAX_STOP_STRINGS,
    "max_top_n_tokens": MAX_LOGPROBS,
}


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Every setting of the HTTP front. The command line derives its flags and their help from here.

    Raises `SettingsError` for values that cannot work.
    """

    host: str = field(
        default="127.0.0.1",
        metadata={"help": "Address to listen on; 0.0.0.0 opens the server to the network."},
    )
    port: int = field(
        default=8000,
        metadata={
            "env": "AIP_HTTP_PORT",
            "help": "Port to listen on; 0 takes a free one and reports it.",
        },
    )
    dialects: tuple[str, ...] = field(
        default=("openai", "anthropic", "tgi", "page"),
        metadata={
            "flag": "--dialect",
            "help": "Whose clients to answer; may be given several times: docs/http.md. Where two "
            "have the same route, the first one given answers.",
        },
    )
    api_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "flag": "--api-key",
            "env": "PENSTOCK_API_KEY",
            "help": "Answer only requests with this bearer token; may be given several times. "
            "Rather in $PENSTOCK_API_KEY or a key file: others on this machine see command lines.",
        },
    )
    admin_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "flag": "--admin-key",
            "env": "PENSTOCK_ADMIN_KEY",
            "help": "Open every route, /admin too, to this bearer token; likewise.",
        },
    )
    api_key_file: str | None = field(
        default=None,
        metadata={
            "help": "JSON or TOML file of keys, by their hashes, with limits: docs/security.md."
        },
    )
    open_metrics: bool = field(
        default=False, metadata={"help": "Show /metrics to those without a key too."}
    )
    vllm_metrics: bool = field(
        default=True,
        metadata={"help": "Repeat the metrics under the names that vLLM's dashboards look for."},
    )
    tls_cert: str | None = field(
        default=None,
        metadata={"help": "PEM file of the server's certificate chain, to speak HTTPS."},
    )
    tls_key: str | None = field(
        default=None, metadata={"help": "PEM file of the certificate's private key."}
    )
    cors_origins: tuple[str, ...] = field(
        default=(),
        metadata={
            "flag": "--cors-origin",
            "help": "Let web pages from this origin use the server, * for any; may be given "
            "several times.",
        },
    )
    served_model_name: str | None = field(
        default=None,
        metadata={"help": "Name by which clients ask for the model; by default its own."},
    )
    max_body_bytes: int = field(
        default=4 * 1024 * 1024, metadata={"help": "Largest request body accepted, in bytes."}
    )
    max_total_body_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata={"help": "Most bytes that the bodies of all requests being answered may have."},
    )
    max_url_bytes: int = field(
        default=16 * 1024, metadata={"help": "Longest URL accepted, in bytes."}
    )
    max_headers: int = field(
        default=100, metadata={"help": "Most headers accepted in one request."}
    )
    max_header_bytes: int = field(
        default=32 * 1024,
        metadata={"help": "Largest headers accepted in one request, in bytes together."},
    )
    max_connections: int = field(
        default=4096, metadata={"help": "Most connections open at once; more are turned away."}
    )
    read_timeout_s: float = field(
        default=60.0,
        metadata={"help": "Seconds within which a request must have arrived, with its body."},
    )
    write_timeout_s: float = field(
        default=60.0,
        metadata={"help": "Seconds without reading after which a client's connection is closed."},
    )
    max_n: int = field(
        default=128, metadata={"help": "Most completions that one prompt may ask for."}
    )
    max_prompts: int = field(
        default=256, metadata={"help": "Most prompts accepted in one completions request."}
    )
    max_logprob_entries: int = field(
        default=4_000_000,
        metadata={
            "help": "Most log probabilities that one request may come to, those of prompts and of "
            "likely alternatives included."
        },
    )
    max_best_of: int = field(default=2, metadata={"help": "Largest best_of in TGI's requests."})
    max_stop_sequences: int = field(
        default=4, metadata={"help": "Most stop strings in TGI's requests."}
    )
    max_top_n_tokens: int = field(
        default=5, metadata={"help": "Largest top_n_tokens in TGI's requests."}
    )
    max_client_batch_size: int = field(
        default=4, metadata={"help": "Most instances in a request to TGI's /vertex."}
    )
    vertex_predict_route: str = field(
        default="",
        metadata={
            "env": "AIP_PREDICT_ROUTE",
            "help": "A further path of TGI's /vertex, as Vertex AI sets it.",
        },
    )
    vertex_health_route: str = field(
        default="",
        metadata={
            "env": "AIP_HEALTH_ROUTE",
            "help": "A further path of /health, as Vertex AI sets it.",
        },
    )
    azureml_task: str = field(
        default="",
        metadata={
            "help": f"What the dialect azureml answers: {' or '.join(AZUREML_TASKS)}. By default "
            "both, as the body asks."
        },
    )
    model_provider: str = field(
        default="", metadata={"help": "Who made the model, as the dialect azureml tells it."}
    )
    content_safety: str = field(
        default="",
        metadata={
            "help": "An async function that may stop prompts and answers, as module:function: "
            "docs/azureml.md. Guards the dialect azureml, which must then be the only one."
        },
    )
    legacy_score: bool = field(
        default=False,
        metadata={
            "help": "/score answers every failure with {} and status 200, and drops parameters "
            "that it does not know, as Azure's own images do."
        },
    )
    tool_parser: str = field(
        default=AUTO,
        metadata={
            "help": "How the model writes tool calls: "
            f"{', '.join(TOOL_PARSERS)}. By default as its chat template teaches it."
        },
    )
    reasoning_parser: str = field(
        default=AUTO,
        metadata={
            "help": "How the model marks what it thinks before it answers: "
            f"{', '.join(REASONING_PARSERS)}. By default as its chat template does."
        },
    )
    request_timeout_s: float | None = field(
        default=None,
        metadata={"help": "Give up on a request after this many seconds; by default never."},
    )
    drain_timeout_s: float = field(
        default=30.0,
        metadata={"help": "Seconds that running requests get to finish once told to stop."},
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata={
            "help": "Collector of OpenTelemetry traces, as in http://127.0.0.1:4318; needs "
            "penstock[otel]."
        },
    )
    access_log: bool = field(
        default=False, metadata={"help": "Log one line per request, without its contents."}
    )

    def __post_init__(self) -> None:
        check_parser_names(self.tool_parser, self.reasoning_parser)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port {self.port} is not between 0 and 65535.")
        self.key_ring()
        if self.otlp_endpoint is not None:
            _check_url(self.otlp_endpoint)
            import_tracing()
        _check_tls(self.tls_cert, self.tls_key)
        for field_ in fields(self):
            name, value = field_.name, getattr(self, field_.name)
            is_amount = name.startswith("max_") or name in _TIMES
            if is_amount and value is not None and value <= 0:
                raise SettingsError(f"{name} must be above 0, not {value}.")
        for name, most in _ENGINES_OWN.items():
            if getattr(self, name) > most:
                raise SettingsError(f"{name} is at most {most}, not {getattr(self, name)}.")
        _check_azureml(self.azureml_task, self.content_safety, self.dialects)
        if self.max_total_body_bytes < self.max_body_bytes:
            raise SettingsError("max_total_body_bytes is less than max_body_bytes.")
        for route in (self.vertex_predict_route, self.vertex_health_route):
            if route and not _PATH.fullmatch(route):
                raise SettingsError(f"{route!r} is no path of a route.", remedy="Try /predict.")
        if self.drain_timeout_s < 0:
            raise SettingsError(f"drain_timeout_s must not be negative, as {self.drain_timeout_s}.")

    def key_ring(self) -> KeyRing:
        """All keys that are set, by their hashes."""
        return key_ring(self.api_keys, self.admin_keys, self.api_key_file)


def import_tracing() -> Any:
    """The module that sends traces. Raises `SettingsError` if what it needs is not installed."""
    return importlib.import_module("penstock.server.tracing")


def _check_url(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise SettingsError(
            f"otlp_endpoint {url} is no URL of a collector.", remedy="Try http://127.0.0.1:4318."
        )


def _check_azureml(task: str, content_safety: str, dialects: tuple[str, ...]) -> None:
    if task and task not in AZUREML_TASKS:
        raise SettingsError(
            f"Task {task!r} is not served.", remedy=f"Choose {' or '.join(AZUREML_TASKS)}."
        )
    if content_safety and dialects != ("azureml",):
        raise SettingsError(
            "Content safety guards the dialect azureml only.",
            remedy="Give --dialect azureml, and no other.",
        )


def _check_tls(cert: str | None, key: str | None) -> None:
    if (cert is None) != (key is None):
        raise SettingsError("tls_cert and tls_key are of use only together.")
    if cert is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"The certificate {cert} and the key {key} cannot be used: {error.strerror or error}.",
            remedy="Both are PEM files, and the key is not encrypted.",
        ) from None
