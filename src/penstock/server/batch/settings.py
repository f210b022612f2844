"""How a batch is worked off."""

from dataclasses import dataclass, field
from typing import Any

from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError


def _as_served(name: str) -> Any:
    """A setting that means the same to a server, and is declared there."""
    setting = ServerSettings.__dataclass_fields__[name]
    return field(default=setting.default, metadata=setting.metadata)


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """What the lines of a batch may ask, and how many are worked on at a time."""

    concurrency: int | None = field(
        default=None,
        metadata={"help": "Lines in flight at a time. Default: twice the engines' max_num_seqs."},
    )
    served_model_name: str | None = _as_served("served_model_name")
    max_body_bytes: int = _as_served("max_body_bytes")
    max_prompts: int = _as_served("max_prompts")
    tool_parser: str = _as_served("tool_parser")
    reasoning_parser: str = _as_served("reasoning_parser")

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise SettingsError(f"concurrency must be at least 1, not {self.concurrency}.")
