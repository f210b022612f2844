"""Fields of OpenAI's API that are no option here: which are harmless, and which are refused.

A field that stands in neither table, in no body and in no sampling option is unknown, and refused.
"""

from typing import Any

from penstock.server.errors import HttpError

IGNORED = {
    "guided_decoding_backend": "there is one backend for constrained output",
    "metadata": "labels for a store of completions; nothing is stored here",
    "prediction": "a guess at the answer, which may speed it up but never changes it",
    "prompt_cache_key": "routes requests to a cache; cache_salt is what separates caches here",
    "prompt_cache_options": "how to bill and keep a cache; the prefix cache needs no advice",
    "prompt_cache_retention": "how long to keep a cache; blocks stay until their room is needed",
    "safety_identifier": "names the end user to OpenAI's abuse detection",
    "service_tier": "chooses a price",
    "store": "whether to keep the completion for later; nothing is stored here",
    "user": "names the end user to OpenAI's abuse detection",
}
"""Accepted with any value, without effect, since real clients send them; and why that is right."""

REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "reasoning_effort": ("none",),
    "suffix": ("",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Would change the answer if it were honoured; with the values that ask for nothing, which pass."""


def drop_foreign(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without what asks for nothing here. Raises `HttpError` for what is refused."""
    kept = {}
    for name, value in values.items():
        if name not in IGNORED and name not in REFUSED:
            kept[name] = value
        elif name in REFUSED and value is not None and value not in REFUSED[name]:
            raise HttpError(
                400,
                f"{name} is not supported yet by this server.",
                param=name,
                code="unsupported_parameter",
            )
    return kept
