"""`penstock quantize`: a model of integers out of a model of floats."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from penstock.engine.settings import option
from penstock.models.location import find_model
from penstock.vocabulary.errors import SettingsError

ROW_LEN = 512
"""Tokens that the model sees at once of the calibration text."""


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings:
    """How weights are to be rounded."""

    weights: str = option(
        "int8", "int8, with a scale for each output, or int4, with one for every 32 inputs."
    )
    calibration: Path | None = field(
        default=None,
        metadata={
            "help": 'A text, or a .jsonl with a "text" on every line, like what the model will be '
            "used for. Without one, it is the language reference that comes with Python."
        },
    )
    calibration_tokens: int = option(4096, "How much of that text to read.")
    smoothing: float = option(
        0.5,
        "From 0 to 1, how much of what is hard to round to move from activations into weights; "
        "0: nothing, and no text is read.",
    )
    revision: str | None = option(None, "Branch, tag or commit, when the model is a name.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")

    def __post_init__(self) -> None:
        if self.weights not in ("int8", "int4"):
            raise SettingsError(f"weights must be int8 or int4, not {self.weights!r}.")
        if not 0 <= self.smoothing <= 1:
            raise SettingsError(f"smoothing must be within 0 and 1, not {self.smoothing}.")
        if self.calibration_tokens < 1:
            raise SettingsError("calibration_tokens must be at least 1.")


def quantize(
    settings: QuantizeSettings,
    model: Annotated[str, typer.Argument(help="Directory or Hugging Face name.")],
    directory: Annotated[
        Path, typer.Argument(help="Where to write the new model; it must not exist, or be empty.")
    ],
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
    device = torch.device(find_device(settings.device))
    torch.set_num_threads(num_threads())
    _, model_dir = find_model(model, settings.revision)
    texts = _texts(settings, model_dir) if settings.smoothing > 0 else []
    with loading_bar("Quantizing") as on_progress:
        quantize_model(
            model_dir,
            directory,
            weights="int8" if settings.weights == "int8" else "int4",
            texts=texts,
            smoothing=settings.smoothing,
            device=device,
            on_progress=on_progress,
        )
    Console().print(f"Written to {directory}. Try: penstock serve {directory}", highlight=False)


def _texts(settings: QuantizeSettings, model_dir: Path) -> list[list[int]]:
    from penstock.text.samples import sample_token_ids
    from penstock.text.tokenizer import Tokenizer

    return sample_token_ids(
        Tokenizer.from_dir(model_dir),
        settings.calibration,
        num_tokens=settings.calibration_tokens,
        row_len=ROW_LEN,
    )
