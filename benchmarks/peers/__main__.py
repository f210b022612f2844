"""Penstock beside its peers on this machine: the same models, the same work, one run.

  python -m benchmarks.peers --cache /tmp/peers --model qwen2.5-0.5b
      makes the model, an environment for each engine and its form of the model (once: this takes
      half an hour and 20 GB), then measures everything, in about 25 minutes on two cores

  python -m benchmarks.peers --cache /tmp/peers --quick
      measures next to nothing, to see that everything works

  python -m benchmarks.peers --cache /tmp/peers --only penstock:int8 --only openvino --into FILE
      measures these again; what FILE has of the others is kept. Ratios are of one run only

Nothing else should run on the machine meanwhile. README.md beside this program says what is
measured, and which settings each engine is given.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.peers.engines import Contender, contenders
from benchmarks.peers.environments import ROOT, Cache
from benchmarks.peers.measure import Entry, Limits, Run, measure, prepare
from benchmarks.peers.models import SHAPES, make_model, tensors
from benchmarks.peers.report import (
    failures,
    merged,
    rates_table,
    ratios,
    ratios_table,
    read_entries,
    targets,
)
from benchmarks.peers.work import FULL, QUICK, Work, all_work, chosen
from penstock.bench.report import write_json
from penstock.engine.host import cpu_name, num_cores
from penstock.vocabulary.errors import PenstockError

RESULTS = ROOT / "benchmarks" / "results"
DEFAULT_MODEL = "qwen2.5-0.5b"
WIDTH = 140  # of the tables where nobody looks: they are kept as text

Advance = Callable[[], None]
Describe = Callable[[Contender, str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    cache: Path
    model: str
    only: list[str]
    work: list[str]
    quick: bool
    prepare: bool
    threads: int
    ready_limit_s: float
    batch_limit_s: float
    into: Path | None

    @property
    def limits(self) -> Limits:
        return Limits(ready_s=self.ready_limit_s, batch_s=self.batch_limit_s)


def main() -> None:
    """Do what the command line asks."""
    options = parse_arguments()
    console = Console(record=True, width=None if sys.stdout.isatty() else WIDTH)
    try:
        run(options, console)
    except PenstockError as error:
        raise SystemExit(str(error)) from None


def parse_arguments() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    limits = Limits()
    add("--cache", type=Path, required=True, help="folder for all that takes long to make")
    add("--model", choices=SHAPES, default=DEFAULT_MODEL, help=f"default: {DEFAULT_MODEL}")
    names = ", ".join(map(str, contenders([])))
    help_ = f"one of {names}; may be given several times"
    add("--only", action="append", default=[], metavar="ENGINE[:WEIGHTS]", help=help_)
    names = ", ".join(work.name for work in all_work(1000, FULL))
    help_ = f"one of {names}; may be given several times"
    add("--work", action="append", default=[], help=help_)
    add("--quick", action="store_true", help="short work that proves nothing, kept in --cache")
    add("--prepare", action="store_true", help="make what is needed, but measure nothing")
    add("--threads", type=int, default=num_cores(), help="of each engine; default: all cores")
    add("--ready-limit-s", type=float, default=limits.ready_s, help="patience with a start")
    add("--batch-limit-s", type=float, default=limits.batch_s, help="patience with a batch")
    add("--into", type=Path, metavar="FILE", help="results of another run, to be renewed")
    return Options(**vars(parser.parse_args()))


def run(options: Options, console: Console) -> None:
    """Make the model, take every contender in turn; tables last."""
    wanted = contenders(options.only)
    shape = SHAPES[options.model]
    works = chosen(all_work(shape.vocab_size, QUICK if options.quick else FULL), options.work)
    entries = read_entries(options.into) if options.into else []
    cache = Cache(options.cache.resolve(), options.threads)
    model = cache.folder / "models" / shape.name
    with bar("Making the model", sum(1 for _ in tensors(shape))) as (advance, _):
        make_model(shape, model, advance)
    with bar("Engines", len(wanted)) as (advance, describe):
        for contender in wanted:
            describe(contender, "preparing")
            reason = prepare(contender, model, cache)
            if options.prepare and reason:
                console.print(f"{contender}: {reason}", highlight=False, markup=False)
            advance()
    if options.prepare:
        return
    began = datetime.now(UTC).isoformat(timespec="seconds")
    this = Run(name=began, works=works, model=model, cache=cache, limits=options.limits)
    load = os.getloadavg()[0]
    with bar("Engines", len(wanted)) as (advance, describe):
        for contender in wanted:
            entries = merged(entries, [measure(contender, this, partial(describe, contender))])
            path = save(entries, options, works, load)  # after each: a run takes most of an hour
            advance()
    show(entries, options, works, load, console)
    path.with_suffix(".txt").write_text(console.export_text(), encoding="utf-8")
    print(f"Kept as {path}", file=sys.stderr)


def show(
    entries: Sequence[Entry],
    options: Options,
    works: Sequence[Work],
    load: float,
    console: Console,
) -> None:
    """The tables, with all that a reader must know of them."""
    titles = {work.name: work.title for work in works}
    now = datetime.now(UTC).date().isoformat()
    console.print(
        f"{options.model}, random weights; {cpu_name()}, {options.threads} threads; {now}; "
        f"load before the run: {load:.1f}" + ("; QUICK: proves nothing" if options.quick else ""),
        highlight=False,
    )
    for failure in failures(entries, titles):
        console.print(f"\nFAILED {failure}", highlight=False, markup=False)
    console.print("", rates_table(entries, titles))
    found = ratios(entries, targets(options.model))
    if found:
        console.print("", ratios_table(found, titles))


def save(
    entries: Sequence[Entry],
    options: Options,
    works: Sequence[Work],
    load: float,
) -> Path:
    """Everything as JSON; the file it is in."""
    folder = options.cache if options.quick else RESULTS
    date = datetime.now(UTC).date().isoformat()
    path = options.into or folder / f"peers-{options.model}-{date}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(
        path,
        "peers",
        (options,),
        load_before=load,
        works={work.name: work.title for work in works},
        entries=entries,
    )
    return path


@contextmanager
def bar(what: str, total: int) -> Iterator[tuple[Advance, Describe]]:
    """A bar of things done; what is being done stands beside it. Lines where nobody watches."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=total)

        def describe(contender: Contender, doing: str) -> None:
            progress.update(task, description=f"{contender}: {doing}")
            if progress.disable:
                now = f"{datetime.now():%H:%M:%S}"
                print(f"{now} {contender}: {doing}", file=sys.stderr, flush=True)

        yield lambda: progress.advance(task), describe


if __name__ == "__main__":
    main()
