"""A model is a directory, or a name on the hub; everything else is explained."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from penstock.models.loading import resolve_model_dir
from penstock.vocabulary.errors import ModelError


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert resolve_model_dir(str(tmp_path)) == tmp_path


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelError, match="is a file"):
        resolve_model_dir(tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", Path("nowhere")])
def test_a_path_to_nothing_is_not_looked_up_on_the_hub(name: str | Path) -> None:
    with pytest.raises(ModelError, match="no directory"):
        resolve_model_dir(name)


@pytest.mark.parametrize("name", ["a/b/c", "two words", "-x"])
def test_what_can_be_no_hub_name_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="neither a directory"):
        resolve_model_dir(name)


def test_a_hub_name_is_fetched_without_code_or_pickles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve_model_dir("someone/model", "v2") == tmp_path
    assert (asked["name"], asked["revision"]) == ("someone/model", "v2")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not {"*", "*.py", "*.bin"} & set(asked["allow_patterns"])
    assert asked["ignore_patterns"] == ["consolidated*.safetensors"]


def test_without_a_network_the_remedy_is_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="name a model directory"):
        resolve_model_dir("someone/model")
