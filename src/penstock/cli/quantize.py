"""`penstock quantize`: a model of integers out of a model of floats."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.models.location import find_model

ROW_LEN = 512


class Integers(StrEnum):
    """How weights may be kept."""

    INT8 = "int8"
    INT4 = "int4"


def quantize(
    model: Annotated[str, typer.Argument(help="Directory or Hugging Face name.")],
    directory: Annotated[
        Path, typer.Argument(help="Where to write the new model; it must not exist, or be empty.")
    ],
    weights: Annotated[
        Integers,
        typer.Option(help="8 bits with a scale for each output, or 4 in groups of 32 inputs."),
    ] = Integers.INT8,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help='A text, or a .jsonl with a "text" on every line, like what the model will be '
            "used for. Without one, it is the language reference that comes with Python."
        ),
    ] = None,
    calibration_tokens: Annotated[
        int, typer.Option(min=1, help="How much of that text to read.")
    ] = 4096,
    smoothing: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="How much of what is hard to round to move from activations into weights; "
            "0: nothing, and no text is read.",
        ),
    ] = 0.5,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit, when the model is a name.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Write a model whose weights are integers, which loads faster and needs no rounding again.

    penstock quantize Qwen/Qwen2.5-0.5B-Instruct qwen-int8 --calibration questions.jsonl

    Outliers in activations are moved into weights first, as SmoothQuant does, by what a text shows
    of them. Penstock serves the directory as it is; vLLM reads its format, compressed-tensors, too.
    """
    with Console(stderr=True).status("Importing torch"):
        import torch

        from penstock.engine.bars import loading_bar
        from penstock.engine.hardware import find_device, num_threads
        from penstock.models.quantizing import quantize_model
        from penstock.text.samples import sample_token_ids
        from penstock.text.tokenizer import Tokenizer
    torch.set_num_threads(num_threads())
    _, model_dir = find_model(model, revision)
    texts: list[list[int]] = []
    if smoothing > 0:
        texts = sample_token_ids(
            Tokenizer.from_dir(model_dir),
            calibration,
            num_tokens=calibration_tokens,
            row_len=ROW_LEN,
        )
    with loading_bar("Quantizing") as on_progress:
        quantize_model(
            model_dir,
            directory,
            weights=weights.value,
            texts=texts,
            smoothing=smoothing,
            device=torch.device(find_device(device)),
            on_progress=on_progress,
        )
    Console().print(f"Written to {directory}. Try: penstock serve {directory}", highlight=False)
