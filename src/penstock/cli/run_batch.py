"""`penstock run-batch`: answer a file of requests, without a server."""

import asyncio
import contextlib
import importlib
import os
import sys
from collections.abc import Coroutine
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
import uvloop
from rich.console import Console

from penstock.engine.async_llm import AsyncLLM
from penstock.engine.bars import counting_bar, loading_bar
from penstock.engine.front_settings import FrontSettings
from penstock.engine.settings import EngineSettings
from penstock.server.batch.ledger import Ledger
from penstock.server.batch.lines import lines_of
from penstock.server.batch.results import Results
from penstock.server.batch.settings import BatchSettings
from penstock.vocabulary.errors import SettingsError

if TYPE_CHECKING:
    from penstock.server.batch.run import Batch, Tally

_STANDARD = "-"


def run_batch(
    engine: EngineSettings,
    front: FrontSettings,
    batch: BatchSettings,
    requests: Annotated[
        str, typer.Argument(help="File of requests, one JSON object a line; - is standard input.")
    ],
    answers: Annotated[
        str,
        typer.Argument(help="File that the answers are added to; - is standard output."),
    ],
) -> None:
    """Answer a file of requests in the format of OpenAI's batches, without a server.

    penstock run-batch requests.jsonl answers.jsonl

    A request is a line like

        {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "def f("}}

    Answers are written as they come, each with its request's custom_id. Whatever ends the command,
    running it again goes on where it ended: nothing is lost, and no request is answered twice.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_opened(requests, answers))
        ledger = stack.enter_context(contextlib.closing(Ledger()))
        results = stack.enter_context(contextlib.closing(_results(answers, ledger)))
        total = _num_lines(source, batch.max_body_bytes)
        if total is not None and ledger.num_answered == total:
            said = f"{answers} answers all {total:,} lines already."
        else:
            values = {field.name: getattr(engine, field.name) for field in fields(engine)}
            llm = AsyncLLM(**values, front=front)
            said = _summary(_finished(_run(llm, batch, source, ledger, results, total)))
    Console(stderr=True, highlight=False).print(said)


def _finished(running: Coroutine[Any, Any, "Tally"]) -> "Tally":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(running)
        except KeyboardInterrupt:
            typer.echo("Stopped. The same command goes on from here.", err=True)
            raise typer.Exit(130) from None


async def _run(
    llm: AsyncLLM,
    settings: BatchSettings,
    source: BinaryIO,
    ledger: Ledger,
    results: Results,
    total: int | None,
) -> "Tally":
    """What HTTP needs is imported while the engine process starts, since both take their time."""
    try:
        with loading_bar() as on_progress:
            started = asyncio.create_task(llm.start(on_progress))
            running = await asyncio.to_thread(importlib.import_module, "penstock.server.batch.run")
            await started
        with counting_bar("Answering", total) as on_line:
            batch: Batch = running.Batch(
                llm,
                settings,
                ledger=ledger,
                results=results,
                concurrency=settings.concurrency
                or 2 * llm.resolved.max_num_seqs * len(llm.replicas),
                on_line=on_line,
            )
            return await batch.run(source)
    finally:
        await llm.close()


def _opened(requests: str, answers: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if requests == _STANDARD:
        return contextlib.nullcontext(sys.stdin.buffer)
    path = Path(requests)
    if answers != _STANDARD and path.exists() and Path(answers).exists() and path.samefile(answers):
        raise SettingsError(f"{requests} cannot be both the input and the output.")
    try:
        return path.open("rb")
    except OSError as error:
        raise SettingsError(f"Cannot read {requests}: {error.strerror}.") from None


def _results(answers: str, ledger: Ledger) -> Results:
    if answers == _STANDARD:
        return Results(os.dup(sys.stdout.fileno()))
    return Results.resume(Path(answers), ledger)


def _num_lines(source: BinaryIO, max_bytes: int) -> int | None:
    """How many there are to answer; None for a pipe, which can be read only once."""
    if not source.seekable():
        return None
    start = source.tell()
    total = sum(1 for _ in lines_of(source, max_bytes))
    source.seek(start)
    return total


def _summary(tally: "Tally") -> str:
    parts = [f"{tally.answered:,} lines answered"]
    if tally.refused:
        parts.append(f"{tally.refused:,} with a failure (their status_code tells)")
    if tally.bad:
        repeated = f", of which {tally.repeated:,} repeat a custom_id" if tally.repeated else ""
        parts.append(f"{tally.bad:,} that are no requests (their error tells){repeated}")
    if tally.done_before:
        parts.append(f"{tally.done_before:,} were answered before")
    return "; ".join(parts) + "."
