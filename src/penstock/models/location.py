"""Where a model's files are: in a directory, in the package, or on the Hugging Face hub.

Imports no torch: the front process needs the tokenizer that lies beside the weights, and no more.
"""

from importlib.resources import files
from pathlib import Path

from penstock.models.directory import resolve_model_dir

EMBEDDED_MODEL_NAME = "penstock-default"


def embedded_model_dir() -> Path:
    """The small model that comes with the package."""
    return Path(str(files("penstock") / "default_model"))


def find_model(model: str | None, revision: str | None = None) -> tuple[str, Path]:
    """(name to show, directory); the embedded model for None.

    A hub name is downloaded first, with a progress bar. Raises `ModelError` if there is no such
    model.
    """
    if model is None:
        return EMBEDDED_MODEL_NAME, embedded_model_dir()
    return model, resolve_model_dir(model, revision)
