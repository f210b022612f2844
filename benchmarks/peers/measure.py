"""One contender at a time: started, warmed up, measured, and gone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.peers.engines import Contender
from benchmarks.peers.environments import Cache, Unavailable
from benchmarks.peers.process import EngineProcess
from benchmarks.peers.work import Answer, Work, expected_seconds


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds after which there are no more repeats, fewer requests, or no more patience."""

    ready_s: float = 900.0
    batch_s: float = 900.0
    repeats_s: float = 40.0
    mixed_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is the same for all that are compared. The name is the time at which it began."""

    name: str
    works: Sequence[Work]
    model: Path
    cache: Cache
    limits: Limits = Limits()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One work's tokens per second, or why there are none."""

    rate: float | None = None
    error: str = ""
    num_requests: int = 1
    rounds: list[list[Answer]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What came of one contender. `run` is the same for all that were measured together."""

    run: str
    engine: str
    weights: str
    kind: str
    error: str = ""
    version: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    ready_s: float | None = None
    peak_bytes: int | None = None
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.engine} {self.weights}"


OnProgress = Callable[[str], None]
"""Told what is being done now."""


def prepare(contender: Contender, model: Path, cache: Cache) -> str:
    """Install the engine and convert the model, unless that is done; why not, if it fails."""
    try:
        cache.install(contender.engine)
        cache.convert(contender, model)
    except Unavailable as reason:
        return str(reason)
    return ""


def measure(contender: Contender, run: Run, on_progress: OnProgress) -> Entry:
    """Whatever goes wrong becomes part of the entry."""
    engine, weights = contender.engine, contender.weights
    entry = Entry(run=run.name, engine=engine.name, weights=weights.name, kind=weights.kind)
    try:
        run.cache.install(engine)
        folder = run.cache.convert(contender, run.model)
        on_progress("starting")
        with _process(contender, folder, run) as process:
            figures = _figures(process, run, on_progress)
            return replace(
                entry,
                version=process.hello["version"],
                settings=process.hello["settings"],
                ready_s=process.ready_s,
                peak_bytes=_peak(figures),
                figures=figures,
            )
    except Unavailable as reason:
        return replace(entry, error=str(reason))


def _process(contender: Contender, folder: Path, run: Run) -> EngineProcess:
    cache = run.cache
    command = [
        str(cache.python(contender.engine)),
        "-m",
        contender.engine.worker,
        f"--model={folder}",
        f"--weights={contender.weights.name}",
        f"--threads={cache.threads}",
    ]
    variables = cache.variables(contender.engine)
    return EngineProcess(command, variables, cache.log(contender), run.limits.ready_s)


def _figures(process: EngineProcess, run: Run, on_progress: OnProgress) -> dict[str, Figure]:
    """Once an engine has failed, the rest of the work is not asked of it."""
    figures: dict[str, Figure] = {}
    broken = ""
    for work in run.works:
        on_progress(work.title)
        if broken:
            figures[work.name] = Figure(error=broken)
            continue
        fitting = _fitting(work, figures, run.limits)
        try:
            figures[work.name] = _figure(process, fitting, run.limits)
        except Unavailable as reason:
            figures[work.name] = Figure(error=str(reason))
            broken = f"not tried after: {work.title}"
    return figures


def _figure(process: EngineProcess, work: Work, limits: Limits) -> Figure:
    for batch in work.warmup:
        process.ask(batch, limits.batch_s)
    start = perf_counter()
    rounds: list[list[Answer]] = []
    for batches in work.rounds:
        rounds.append([process.ask(batch, limits.batch_s) for batch in batches])
        if perf_counter() - start > limits.repeats_s:
            break
    return Figure(rate=work.rate(rounds), num_requests=work.num_requests, rounds=rounds)


def _fitting(work: Work, figures: dict[str, Figure], limits: Limits) -> Work:
    """The mix with fewer requests, if what is known of the engine says that it takes too long."""
    prompt_rates = [each.rate for name, each in figures.items() if name.startswith("prompt")]
    decode_rate = figures["streams"].rate if "streams" in figures else None
    if work.shorter is None or not decode_rate or not prompt_rates or not prompt_rates[0]:
        return work
    if expected_seconds(work, prompt_rates[0], decode_rate) <= limits.mixed_s:
        return work
    return work.shorter


def _peak(figures: dict[str, Figure]) -> int | None:
    peaks = [
        answer.peak_bytes
        for figure in figures.values()
        for answers in figure.rounds
        for answer in answers
    ]
    return max(peaks, default=None)
