"""What a person may ask of `penstock bench`. The command line derives its flags from here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.vocabulary.errors import SettingsError


def _option(default: Any, help_: str, spelling: str = "") -> Any:
    return field(default=default, metadata={"help": help_, "flag": spelling})


def _require(holds: bool, message: str, remedy: str = "") -> None:
    if not holds:
        raise SettingsError(message, remedy=remedy)


def _require_folder(path: Path | None) -> None:
    """Said before a long measurement rather than after it."""
    if path is not None:
        _require(path.parent.is_dir(), f"There is no folder {path.parent} to write {path.name} to.")


@dataclass(frozen=True, kw_only=True)
class WorkloadSettings:
    """Which requests to send."""

    workload: Path | None = field(
        default=None,
        metadata={
            "help": "Requests of your own, one JSON object a line: "
            '{"prompt": TEXT or [IDS], "max_tokens": N}. '
            "By default they are made up, as long as those that people share (ShareGPT)."
        },
    )
    num_requests: int | None = _option(
        None, "How many requests a run has. Default: 64, or all those of --workload."
    )
    seed: int = _option(
        0, "Made-up lengths, prompts and arrival times depend on nothing but this number."
    )

    def __post_init__(self) -> None:
        _require(self.num_requests is None or self.num_requests >= 1, "Send at least one request.")
        _require(self.seed >= 0, "A seed cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """What one stream is to do, and how often."""

    prompt_lens: tuple[int, ...] = _option(
        (128, 512), "Tokens in the prompt; may be given several times.", "--prompt-len"
    )
    output_len: int = _option(64, "Tokens to generate.")
    warmup: int = _option(1, "Runs of each length before those that count.")
    repeats: int = _option(5, "Runs of each length that count; the table shows their medians.")
    seed: int = _option(0, "Prompts are random tokens, drawn from this number.")

    def __post_init__(self) -> None:
        _require(min(self.prompt_lens) >= 1, "A prompt has at least one token.")
        _require(self.output_len >= 2, "The time between tokens needs an output of two or more.")
        _require(self.warmup >= 0 and self.repeats >= 1, "Repeat at least once.")
        _require(self.seed >= 0, "A seed cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class ThroughputSettings:
    """How often to answer the whole workload."""

    warmup: int = _option(4, "Short requests to answer before those that count.")
    repeats: int = _option(1, "Times to answer all of it; the last row shows the medians.")

    def __post_init__(self) -> None:
        _require(self.warmup >= 0 and self.repeats >= 1, "Repeat at least once.")


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Which server to talk to, and how."""

    api_key: str | None = field(
        default=None, repr=False, metadata={"help": "Sent as bearer token; written nowhere."}
    )
    model: str | None = _option(
        None, "The name to ask for. Default: the first that the server lists."
    )
    max_model_len: int | None = _option(
        None, "Made-up requests fit into so many tokens. Default: what the server says, if it does."
    )
    vocab_size: int = _option(
        1000, "Made-up prompts are token ids below this; keep it below the model's vocabulary."
    )
    ignore_eos: bool = _option(
        True, "Ask for outputs of full length. Switch it off for servers that refuse the field."
    )
    timeout_s: float = _option(600.0, "A request that takes longer counts as failed.")

    def __post_init__(self) -> None:
        _require(self.vocab_size >= 16, "Draw prompts from at least 16 token ids.")
        _require(self.timeout_s > 0, "The time-out must be more than 0.")


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """How hard to press, and what counts as being served well."""

    clients: tuple[int, ...] = _option(
        (),
        "So many clients, each sending its next request when the last is answered. May be given "
        "several times, for one run each. Default: 4.",
    )
    rates: tuple[float, ...] = _option(
        (),
        "Instead of clients: so many requests a second, arriving at random (Poisson), whether or "
        "not the server keeps up. May be given several times.",
        "--rate",
    )
    warmup: int = _option(1, "Requests per client (or in all, with --rate) before those counted.")
    reading_speeds: tuple[float, ...] = _option(
        (2.0, 4.0, 6.0),
        "Tokens per second that a reader wants without a pause, for the effective throughput. May "
        "be given several times.",
        "--reading-speed",
    )

    def __post_init__(self) -> None:
        _require(
            not (self.clients and self.rates),
            "--clients and --rate exclude each other.",
            "Clients wait for their answers; arrivals at a rate do not. Measure one at a time.",
        )
        _require(min(self.clients, default=1) >= 1, "--clients must be at least 1.")
        _require(min(self.rates, default=1) > 0, "--rate must be more than 0.")
        _require(min(self.reading_speeds) > 0, "--reading-speed must be more than 0.")
        _require(self.warmup >= 0, "--warmup cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Where the figures go beside the terminal."""

    json_file: Path | None = field(
        default=None,
        metadata={
            "flag": "--json",
            "help": "Write everything here: figures, settings, machine, versions, date.",
        },
    )

    def __post_init__(self) -> None:
        _require_folder(self.json_file)


@dataclass(frozen=True, kw_only=True)
class PlotSettings:
    """Where the picture goes."""

    plot: Path | None = field(
        default=None, metadata={"help": "Draw latency against load into this SVG file."}
    )

    def __post_init__(self) -> None:
        _require_folder(self.plot)
