"""Where in a mounted model folder the model is, and what the folder says of it.

Azure mounts MLflow's layouts, an older one of them with weights, configuration and tokenizer in
folders of their own, and plain Hugging Face directories.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from penstock.vocabulary.errors import ModelError

_FLAVORS = (
    ("transformers", "task"),
    ("hftransformersv2", "task_type"),
    ("hftransformers", "task_type"),
)


@dataclass(frozen=True)
class MountedModel:
    """A model directory, and what its MLmodel says; empty where it says nothing."""

    directory: Path
    task: str = ""
    name: str = ""
    provider: str = ""


def mounted_model(root: Path, sub_path: str = "") -> MountedModel:
    """The model below `root`, or below the folder of it that is named. Raises `ModelError`."""
    start = root / sub_path
    if not start.is_dir():
        raise ModelError(f"There is no folder {start}.", remedy="Is the model mounted there?")
    only = [each for each in start.iterdir() if each.is_dir()]
    for place in (start, *(only if len(only) == 1 else ())):
        if model := _mlflow(place) or _plain(place):
            return model
    raise ModelError(
        f"{start} holds no model in a layout of Azure's.",
        remedy="Expected: mlflow_model_folder/MLmodel, model_artifact/model, or config.json.",
    )


def _plain(place: Path) -> MountedModel | None:
    candidates = (place, place / "model_artifact" / "model", place / "model")
    found = next((each for each in candidates if (each / "config.json").is_file()), None)
    return None if found is None else MountedModel(found)


def _mlflow(place: Path) -> MountedModel | None:
    candidates = (place, place / "mlflow_model_folder")
    folder = next((each for each in candidates if (each / "MLmodel").is_file()), None)
    if folder is None:
        return None
    about = _read(folder / "MLmodel")
    flavors, metadata = _section(about, "flavors"), _section(about, "metadata")
    tasks = [_section(flavors, flavor).get(key) for flavor, key in _FLAVORS]
    tasks.append(metadata.get("base_model_task"))
    return MountedModel(
        _weights(folder),
        task=next((str(task) for task in tasks if task), ""),
        name=str(metadata.get("base_model_name") or ""),
        provider=str(metadata.get("model_provider_name") or ""),
    )


def _weights(folder: Path) -> Path:
    for weights in (folder / "model", folder / "data" / "model"):
        parts = [
            weights,
            weights.parent / "config",
            weights.parent / "tokenizer",
            folder / "components" / "tokenizer",
        ]
        if weights.is_dir():
            return _together([part for part in parts if part.is_dir()])
    raise ModelError(f"{folder} has an MLmodel, but neither model nor data/model.")


def _together(parts: list[Path]) -> Path:
    """One directory with the files of all parts. A file that several have is the first one's."""
    if len(parts) == 1:
        return parts[0]
    directory = Path(tempfile.mkdtemp(prefix="penstock-model-"))
    for part in parts:
        for file in part.iterdir():
            link = directory / file.name
            if not link.exists():
                link.symlink_to(file.resolve())
    return directory


def _read(path: Path) -> dict[str, Any]:
    try:
        about = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from None
    if not isinstance(about, dict):
        raise ModelError(f"{path} is no mapping.")
    return about


def _section(about: dict[str, Any], name: str) -> dict[str, Any]:
    section = about.get(name)
    return section if isinstance(section, dict) else {}
