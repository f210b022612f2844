"""A tokenizer for text that stands in the middle of another, where no word begins the text."""

import json
from typing import Any

import tokenizers


def mid_text_library(library: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A copy that splits text into tokens as they would stand within a longer text.

    What the file says to put before a text (a space, a beginning-of-text token) is left out, and so
    is every normalization that would change it. Special tokens are not recognized.
    """
    declared = json.loads(library.to_str())
    declared["post_processor"] = None
    declared["normalizer"] = _spaces_only(declared["normalizer"])
    declared["pre_tokenizer"] = _without_first_space(declared["pre_tokenizer"])
    copy = tokenizers.Tokenizer.from_str(json.dumps(declared))
    copy.encode_special_tokens = True
    return copy


def _spaces_only(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of the normalizers, only those that rewrite one text as another ("▁" for a space)."""
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kept = [step for step in steps if step["type"] == "Replace" and "String" in step["pattern"]]
    return {"type": "Sequence", "normalizers": kept} if kept else None


def _without_first_space(splitter: dict[str, Any] | None) -> dict[str, Any] | None:
    if splitter is None:
        return None
    if splitter["type"] == "Sequence":
        return {
            **splitter,
            "pretokenizers": [_without_first_space(step) for step in splitter["pretokenizers"]],
        }
    changes = {"add_prefix_space": False, "prepend_scheme": "never"}
    return {**splitter, **{name: changes[name] for name in changes if name in splitter}}
