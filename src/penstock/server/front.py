"""What all endpoints share: the engine, the settings, the metrics, and whether we are leaving."""

import asyncio
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from penstock.server.engine_front import EngineFront
from penstock.server.errors import HttpError
from penstock.server.metrics import Metrics
from penstock.server.settings import ServerSettings
from penstock.text.parsing.choice import Formats, chosen_formats
from penstock.vocabulary.errors import Unavailable


@dataclass(eq=False)
class Front:
    """One server. `num_open` counts the HTTP requests being answered, `work` what answers them."""

    llm: EngineFront
    settings: ServerSettings
    metrics: Metrics
    started_at: int = field(default_factory=lambda: int(time.time()))
    is_draining: bool = False
    is_cut_off: bool = False
    num_open: int = 0
    work: set[asyncio.Task[Any]] = field(default_factory=set)

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
        if name is not None and name != self.model_name:
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

    def cut_off(self) -> None:
        """Running requests have had their time: each ends now, and its client is told why."""
        self.is_cut_off = True
        for task in self.work:
            task.cancel()
