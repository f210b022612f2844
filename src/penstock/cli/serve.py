"""`penstock serve`: answer over HTTP."""

import asyncio
import dataclasses
import importlib
import logging
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from penstock.cli.table import Row, print_settings
from penstock.engine.async_llm import AsyncLLM
from penstock.engine.bars import loading_bar
from penstock.engine.front_settings import FrontSettings
from penstock.engine.settings import EngineSettings
from penstock.server.settings import ServerSettings
from penstock.text.parsing.choice import chosen_formats


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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    settings = {field.name: getattr(engine, field.name) for field in dataclasses.fields(engine)}
    llm = AsyncLLM(**{**settings, "model": model}, front=front)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            raise typer.Exit(runner.run(_serve(llm, server)))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


async def _serve(llm: AsyncLLM, settings: ServerSettings) -> int:
    """What HTTP needs is imported while the engine process starts, since both take their time."""
    console = Console(stderr=True)
    try:
        with loading_bar() as on_progress:
            started = asyncio.create_task(llm.start(on_progress))
            serving = await asyncio.to_thread(importlib.import_module, "penstock.server.serve")
            await started
        print_settings(llm.resolved, llm.notes, console, _formats(llm, settings))
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


def _greet(url: str, console: Console) -> Any:
    console.print(f"\nReady at [bold green]{url}[/]  (OpenAI's API under {url}/v1; Ctrl-C to stop)")
