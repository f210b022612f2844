"""Bars on the terminal for whatever takes longer than a moment. Nothing is drawn where no one
looks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from penstock.engine.settings import OnProgress


@contextmanager
def loading_bar(what: str = "Loading weights", *, shown: bool = True) -> Iterator[OnProgress]:
    """A bar of bytes read; its function takes (bytes done, bytes in all)."""
    with _bar(DownloadColumn(), shown=shown) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def counting_bar(
    what: str, total: int | None, *, shown: bool = True
) -> Iterator[Callable[[], None]]:
    """A bar of things done; its function says that one more is. `total` is None if nobody knows."""
    with _bar(MofNCompleteColumn(), shown=shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


class GenerationBar:
    """A bar of finished prompts, with the rate of generated tokens beside it."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar = _bar(MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), shown=shown)
        self._task = self._bar.add_task("Generating", total=total, rate="")
        self._num_tokens = 0

    def __enter__(self) -> "GenerationBar":
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def add(self, *, num_tokens: int, finished: bool) -> None:
        """So many tokens more, and perhaps a prompt done with."""
        self._num_tokens += num_tokens
        elapsed = self._bar.tasks[self._task].elapsed or 0
        rate = f"{self._num_tokens / elapsed:,.0f} tokens/s" if elapsed else ""
        self._bar.update(self._task, advance=int(finished), rate=rate)


def _bar(*columns: ProgressColumn, shown: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )
