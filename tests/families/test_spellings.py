"""A configuration means the same in the spelling of transformers 4 and in that of 5."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.models.loading import read_config
from tests.tiny_models import TINY_FAMILIES


def old_spelling(options: dict[str, Any]) -> dict[str, Any]:
    """What transformers 4 would have written."""
    options = dict(options)
    rope = options.pop("rope_parameters", None) or {}
    neox = options["model_type"] == "gpt_neox"
    theta, kind = rope.pop("rope_theta", None), rope.pop("rope_type", "default")
    fraction = rope.pop("partial_rotary_factor", None)
    options["rotary_emb_base" if neox else "rope_theta"] = theta
    options["rotary_pct" if neox else "partial_rotary_factor"] = fraction
    options["rope_scaling"] = {"type": kind, **rope} if rope else None
    options["torch_dtype"] = options.pop("dtype")
    return options


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_old_and_new_configurations_are_read_alike(name: str, tmp_path: Path) -> None:
    model = TINY_FAMILIES[name]()
    model.config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    options = json.loads(path.read_text())
    options |= {"architectures": [type(model).__name__], "dtype": "float32"}
    path.write_text(json.dumps(options))
    new = read_config(tmp_path)
    path.write_text(json.dumps(old_spelling(options)))
    assert read_config(tmp_path).spec == new.spec
