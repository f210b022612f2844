"""`penstock serve`: answer over HTTP."""

import asyncio
import dataclasses
import importlib
import logging
from contextlib import nullcontext
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from penstock.cli.table import Row, print_settings, replica_rows, settings_rows
from penstock.engine.async_llm import AsyncLLM
from penstock.engine.bars import loading_bar
from penstock.engine.front_settings import FrontSettings
from penstock.engine.log_format import about, set_up_logging
from penstock.engine.settings import EngineSettings
from penstock.server.settings import ServerSettings
from penstock.text.parsing.choice import chosen_formats

log = logging.getLogger("penstock")


def serve(
    engine: EngineSettings,
    front: FrontSettings,
    server: ServerSettings,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Directory or Hugging Face name. Without one, the small embedded model."
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP, with OpenAI's API under /v1.

    Once it is ready, try:

        curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json'
        -d '{"prompt": "def fibonacci(n):", "max_tokens": 64, "stream": true}'

    Ctrl-C or SIGTERM lets running requests finish; a second one does not.
    """
    set_up_logging(front.log_format)
    run(engine, front, server, model)


def run(
    engine: EngineSettings, front: FrontSettings, server: ServerSettings, model: str | None
) -> None:
    """Serve until told to stop, and exit with the server's status."""
    settings = {field.name: getattr(engine, field.name) for field in dataclasses.fields(engine)}
    llm = AsyncLLM(**{**settings, "model": model}, front=front)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            raise typer.Exit(runner.run(_serve(llm, server)))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


async def _serve(llm: AsyncLLM, settings: ServerSettings) -> int:
    """What HTTP needs is imported while the engine process starts, since both take their time."""
    console = None if llm.front.log_format == "json" else Console(stderr=True)
    try:
        with loading_bar() if console else nullcontext() as on_progress:
            started = asyncio.create_task(llm.start(on_progress))
            serving = await asyncio.to_thread(importlib.import_module, "penstock.server.serve")
            await started
        replicas = replica_rows([replica.ready for replica in llm.replicas])
        _show(llm, [*replicas, *_formats(llm, settings)], console)
        status: int = await serving.serve(llm, settings, on_ready=lambda url: _greet(url, console))
        return status
    finally:
        await llm.close()


def _formats(llm: AsyncLLM, settings: ServerSettings) -> list[Row]:
    """What will be told from plain text in the model's answers."""
    formats = chosen_formats(
        settings.tool_parser, settings.reasoning_parser, llm.tokenizer.chat_template_source
    )
    tools, reasoning = formats.tools, formats.reasoning
    return [
        ("tool calls", tools.name if tools else "none", formats.tools_reason),
        ("reasoning", reasoning.name if reasoning else "none", formats.reasoning_reason),
    ]


def _show(llm: AsyncLLM, more: list[Row], console: Console | None) -> None:
    """What was chosen, and why: as a table for people, or in the log."""
    if console:
        print_settings(llm.resolved, llm.notes, console, more)
        return
    rows = [*settings_rows(llm.resolved), *more]
    log.info("settings", extra=about(**{name: value for name, value, _ in rows if name}))
    for note in llm.notes:
        log.info(note)


def _greet(url: str, console: Console | None) -> Any:
    if console is None:
        log.info("Ready at %s", url, extra=about(url=url))
        return
    console.print(f"\nReady at [bold green]{url}[/]  (OpenAI's API under {url}/v1; Ctrl-C to stop)")
