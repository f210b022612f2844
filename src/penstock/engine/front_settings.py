"""What a user may ask of the front's handle on the engine."""

from dataclasses import dataclass

from penstock.engine.log_format import LOG_FORMATS
from penstock.engine.settings import option
from penstock.vocabulary.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """How the engine's front treats those who wait, and an engine that does not answer."""

    max_waiting: int = option(
        1024, "Most completions that may wait beyond those that run; more are told to come back."
    )
    heartbeat_timeout_s: float = option(
        30.0, "Not ready after so many seconds without a turn of the engine's loop."
    )
    watchdog_s: float = option(
        600.0, "Kill and restart the engine after so many seconds without a turn of its loop."
    )

    log_format: str = option("text", f"How the log is written: {', '.join(LOG_FORMATS)}.")
    max_prompt_chars: int = option(
        4_000_000, "Most characters of a prompt that are tokenized; a longer one is refused."
    )

    def __post_init__(self) -> None:
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(
                f"There is no log format {self.log_format!r}.",
                remedy=f"Choose among {', '.join(LOG_FORMATS)}.",
            )
        if self.max_prompt_chars <= 0:
            raise SettingsError(f"max_prompt_chars must be above 0, not {self.max_prompt_chars}.")
        if self.max_waiting < 0 or self.heartbeat_timeout_s <= 0 or self.watchdog_s <= 0:
            raise SettingsError(
                "max_waiting must not be negative, nor heartbeat_timeout_s or watchdog_s 0 or less."
            )
