"""What a user may ask of the front's handle on the engine."""

from dataclasses import dataclass, field

from penstock.engine.log_format import LOG_FORMATS
from penstock.engine.placement import AUTO, DeviceMap, mapped_gpus
from penstock.engine.settings import option
from penstock.vocabulary.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """How many engines there are behind the front, and how it treats those who wait, and an engine
    that does not answer.
    """

    replicas: int | None = option(
        None,
        "How many engines to run side by side, each with all of the model: on GPUs one on each, on "
        "a CPU with a share of the processors each. Default: 1, or as --device-map has it.",
    )
    device_map: DeviceMap = field(
        default=AUTO,
        metadata={
            "help": "Which GPU each replica gets: auto, a GPU's number, or a list for each "
            "replica, as in [[0], [1]]."
        },
    )
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
        if self.replicas is not None and self.replicas < 1:
            raise SettingsError(f"replicas must be above 0, not {self.replicas}.")
        mapped_gpus(self.device_map)
        if self.log_format not in LOG_FORMATS:
            raise SettingsError(
                f"There is no log format {self.log_format!r}.",
                remedy=f"Choose among {', '.join(LOG_FORMATS)}.",
            )
        if self.max_prompt_chars <= 0:
            raise SettingsError(f"max_prompt_chars must be above 0, not {self.max_prompt_chars}.")
        if self.max_waiting < 0 or not (self.heartbeat_timeout_s > 0 and self.watchdog_s > 0):
            raise SettingsError(
                "max_waiting must not be negative, nor heartbeat_timeout_s or watchdog_s 0 or less."
            )
