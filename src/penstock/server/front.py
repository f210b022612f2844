"""What all endpoints share: the engine, the settings, the metrics, and whether we are leaving."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from penstock.server.content_safety import ContentSafety
from penstock.server.engine_front import EngineFront
from penstock.server.errors import HttpError
from penstock.server.keys import KeyRing
from penstock.server.metrics import Metrics
from penstock.server.settings import ServerSettings, import_tracing
from penstock.server.visit import Visit
from penstock.text.parsing.choice import Formats, chosen_formats
from penstock.vocabulary.errors import Unavailable

if TYPE_CHECKING:
    from penstock.server.tracing import Tracing

# By these TGI's users ask for whatever is served; the second is what huggingface_hub's client sends
# when it knows nothing but the server's address.
TGI_MODEL_NAMES = ("tgi", "dummy")


@dataclass(eq=False)
class Front:
    """One server. `visits` are the HTTP requests being answered, `work` what answers them.

    `drained_by` is when those still running are cut off, by `time.monotonic`. `content_safety` is
    None where nothing checks prompts and answers.
    """

    llm: EngineFront
    settings: ServerSettings
    metrics: Metrics
    tracing: "Tracing | None" = None
    started_at: int = field(default_factory=lambda: int(time.time()))
    is_draining: bool = False
    is_cut_off: bool = False
    drained_by: float = 0.0
    visits: set[Visit] = field(default_factory=set)
    work: set[asyncio.Task[Any]] = field(default_factory=set)
    keys: KeyRing = field(init=False)
    content_safety: ContentSafety | None = field(init=False)

    def __post_init__(self) -> None:
        self.keys = self.settings.key_ring()
        safety = self.settings.content_safety
        self.content_safety = ContentSafety.load(safety) if safety else None
        self.settings = replace(self.settings, api_keys=(), admin_keys=())  # hashes will do

    @property
    def num_open(self) -> int:
        return len(self.visits)

    @property
    def model_name(self) -> str:
        return self.settings.served_model_name or self.llm.model_name

    @cached_property
    def formats(self) -> Formats:
        """How the served model writes tool calls and thoughts."""
        return chosen_formats(
            self.settings.tool_parser,
            self.settings.reasoning_parser,
            self.llm.tokenizer.chat_template_source,
        )

    def check_model(self, name: str | None) -> None:
        """Refuse a request that asks for a model that is not served here."""
        is_any = name in TGI_MODEL_NAMES and "tgi" in self.settings.dialects
        if name is not None and name != self.model_name and not is_any:
            raise HttpError(
                404,
                f"The model `{name}` does not exist. This server has `{self.model_name}`.",
                param="model",
                code="model_not_found",
            )

    def check_open(self) -> None:
        """Refuse new work while draining."""
        if self.is_draining:
            raise Unavailable("The server is shutting down.")

    def check_room(self) -> None:
        """Refuse new work that could not even wait."""
        self.check_open()
        self.llm.check_room()

    def drain(self) -> None:
        """Finish what is running, take nothing new, and then leave."""
        if not self.is_draining:
            self.drained_by = time.monotonic() + self.settings.drain_timeout_s
            self.is_draining = True

    def cut_off(self) -> None:
        """Running requests have had their time: each ends now, and its client is told why."""
        self.is_cut_off = True
        for task in self.work:
            task.cancel()


def front_of(llm: EngineFront, settings: ServerSettings) -> Front:
    """A front as its settings want it."""
    model_name = settings.served_model_name or llm.model_name
    metrics = Metrics(
        lambda: llm.replicas,
        vllm_model=model_name if settings.vllm_metrics else None,
    )
    llm.steps.on_step.append(metrics.stepped)
    tracing = None
    if settings.otlp_endpoint is not None:
        tracing = import_tracing().Tracing(settings.otlp_endpoint, model_name)
    return Front(llm, settings, metrics, tracing)
