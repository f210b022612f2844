"""What the files beside tokenizer.json say: special tokens and the chat template."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock.vocabulary.errors import ModelError

_NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an empty one if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", remedy=_FETCH_AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold a JSON object.", remedy=_FETCH_AGAIN)
    return content


def named_special_tokens(model_dir: Path, config: dict[str, Any]) -> dict[str, str]:
    """Special tokens by their role ("eos_token"), as tokenizer_config.json or, failing that,
    special_tokens_map.json names them."""
    named = read_json_object(model_dir / "special_tokens_map.json") | config
    texts = {role: _text_of(named.get(role)) for role in _NAMED_TOKENS}
    return {role: text for role, text in texts.items() if text is not None}


def eos_token_id(model_dir: Path) -> int | None:
    """The id of what ends a text according to the tokenizer's files, if they name it."""
    config = read_json_object(model_dir / "tokenizer_config.json")
    eos = named_special_tokens(model_dir, config).get("eos_token")
    if eos is None:
        return None
    declared = config.get("added_tokens_decoder")
    ids = _ids_of(declared.items() if isinstance(declared, dict) else [], eos)
    if not ids:  # written down there since 2023; here always, but this file is large
        added = read_json_object(model_dir / "tokenizer.json").get("added_tokens")
        entries = added if isinstance(added, list) else []
        ids = _ids_of(
            ((str(e["id"]), e) for e in entries if isinstance(e, dict) and "id" in e), eos
        )
    return ids[0] if ids else None


def _ids_of(entries: Iterable[tuple[str, object]], text: str) -> list[int]:
    return [int(id_) for id_, token in entries if _text_of(token) == text and id_.isdecimal()]


def chat_template_source(model_dir: Path, config: dict[str, Any]) -> str | None:
    """The template in chat_template.jinja, tokenizer_config.json or chat_template.json, if any."""
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", remedy=_FETCH_AGAIN) from None
    declared = config.get("chat_template")
    if declared is None:
        declared = read_json_object(model_dir / "chat_template.json").get("chat_template")
    return _default_template(declared, model_dir)


def _default_template(declared: object, model_dir: Path) -> str | None:
    """A template is declared as text, or as a list of named ones, of which we take "default"."""
    if declared is None or isinstance(declared, str):
        return declared
    entries = declared if isinstance(declared, list) else []
    named = {
        entry["name"]: entry["template"]
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and entry.get("template") is not None
    }
    template = named.get("default")
    if not isinstance(template, str):
        raise ModelError(
            f"{model_dir} declares no default chat template, only: {', '.join(named)}.",
            remedy="Put the one to use into chat_template.jinja beside the model.",
        )
    return template


def _text_of(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


_FETCH_AGAIN = "Fetch the model's tokenizer files again."
