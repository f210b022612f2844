"""A model in this very process, for commands that need no server."""

import dataclasses
from typing import TYPE_CHECKING

from rich.console import Console

from penstock.engine.settings import EngineSettings

if TYPE_CHECKING:
    from penstock.engine.llm import LLM


def load(settings: EngineSettings) -> "LLM":
    """Load what the settings ask for, with a bar while it takes."""
    with Console(stderr=True).status("Loading the model"):
        from penstock.engine.llm import LLM  # here, since torch takes seconds to import

        return LLM(
            **{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        )
