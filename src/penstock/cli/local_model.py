"""A model in this very process, for commands that need no server."""

import dataclasses
from typing import TYPE_CHECKING

from rich.console import Console

from penstock.engine.settings import EngineSettings

if TYPE_CHECKING:
    from penstock.engine.llm import LLM


def load(settings: EngineSettings) -> "LLM":
    """Load what the settings ask for, and show what the wait is for."""
    with Console(stderr=True).status("Importing torch"):
        from penstock.engine.llm import LLM
    return LLM(
        **{field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    )
