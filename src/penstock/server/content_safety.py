"""A function of the operator's own that sees every text of prompts and answers, and may stop it."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from penstock.vocabulary.errors import SettingsError

Direction = Literal["input", "output"]
Check = Callable[[str, Direction], Awaitable[bool]]


class ContentSafety:
    """Asks `check` about texts. What it raises fails the request: nothing passes unseen."""

    def __init__(self, check: Check) -> None:
        self._check = check

    @classmethod
    def load(cls, spec: str) -> "ContentSafety":
        """The function named by `module:function`. Raises `SettingsError` if there is none."""
        module_name, _, name = spec.partition(":")
        try:
            check = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingsError(
                f"Content safety {spec!r} cannot be loaded: {error}.",
                remedy="Give module:function, with the module's folder in PYTHONPATH.",
            ) from None
        if not inspect.iscoroutinefunction(check):
            raise SettingsError(
                f"Content safety {spec!r} is not an async function.",
                remedy="Write `async def check(text: str, direction: str) -> bool`.",
            )
        return cls(check)

    async def passing(self, texts: Iterable[str], direction: Direction) -> list[bool]:
        """Of each text, whether it may pass. All are asked about at once."""
        return await asyncio.gather(*(self._passes(text, direction) for text in texts))

    async def _passes(self, text: str, direction: Direction) -> bool:
        return not text or bool(await self._check(text, direction))


def texts_in(value: Any) -> set[str]:
    """All strings in decoded JSON, but for the names of fields."""
    found: set[str] = set()
    rest = [value]
    while rest:
        match rest.pop():
            case str(text):
                found.add(text)
            case dict(fields):
                rest += fields.values()
            case list(items):
                rest += items
    return found
