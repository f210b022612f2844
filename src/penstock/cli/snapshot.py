"""`penstock snapshot`: pack a model's weights once, for starts that take seconds."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.engine.bars import loading_bar
from penstock.engine.settings import EngineSettings, ModelSettings
from penstock.models.location import find_model

_GIB = 2**30


def snapshot(
    settings: ModelSettings,
    model: Annotated[str, typer.Argument(help="Directory or Hugging Face name.")],
    out: Annotated[Path, typer.Argument(help="Directory to write, which must not exist yet.")],
) -> None:
    """Write a model with its weights packed for this machine's instruction set.

    penstock snapshot Qwen/Qwen2.5-0.5B-Instruct qwen-int8 --weights int8

    penstock serve qwen-int8

    The directory holds all that serving takes. Served from it, weights are mapped rather than read
    and packed, so a start takes seconds, and several servers share one copy in memory. A machine
    whose instruction set differs refuses it and says so.
    """
    console = Console(stderr=True, highlight=False)
    with console.status("Importing torch"):
        from penstock.engine.loading import prepare
    name, model_dir = find_model(model, settings.revision)
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    prepared = prepare(EngineSettings(**{**given, "model": model}), model_dir, name)
    with loading_bar() as on_progress:
        made = prepared.weights.write(out, name, on_progress)
    origin = made.origin
    console.print(
        f"{out}: {made.nbytes / _GIB:.2f} GiB, {origin.weights} weights for "
        f"{origin.instruction_set}. Serve it with: penstock serve {out}",
        soft_wrap=True,
    )
