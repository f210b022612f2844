"""A config.json as families read it: typed, with defaults, and with errors that name the option."""

import contextlib
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.kernels.activation.reference import ACTIVATIONS
from penstock.vocabulary.errors import ModelError

_MISSING: Any = object()
_MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class HfConfig:
    """The options of one checkpoint. An option that is null counts as absent, unless said
    otherwise.
    """

    values: Mapping[str, Any]

    def with_defaults(self, **defaults: Any) -> "HfConfig":
        """The same options, with values for those that are not written down at all."""
        return HfConfig({**defaults, **self.values})

    def value(self, name: str, default: Any = _MISSING) -> Any:
        """The option as it is written; without a default it must be there."""
        found = self.values.get(name)
        if found is not None:
            return found
        if default is _MISSING:
            raise ModelError(f"config.json does not say {name}, which this architecture needs.")
        return default

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A count or a size, at least 1."""
        found = self.value(name, default)
        if type(found) is not int or not 1 <= found <= _MAX_INTEGER:
            raise ModelError(
                f"config.json: {name} must be a positive integer, not {reprlib.repr(found)}."
            )
        return found

    def optional_integer(self, name: str) -> int | None:
        """A count or a size that may be null or absent."""
        return None if self.value(name, None) is None else self.integer(name)

    def number(self, name: str, default: Any = _MISSING) -> float:
        """Any number but the infinite ones, which JSON in Python knows."""
        found = self.value(name, default)
        return finite(f"config.json: {name}", found)

    def positive(self, name: str, default: Any = _MISSING) -> float:
        """A number above 0."""
        found = self.number(name, default)
        if found <= 0:
            raise ModelError(f"config.json: {name} must be above 0, not {found}.")
        return found

    def flag(self, name: str, default: bool) -> bool:
        found = self.value(name, default)
        if not isinstance(found, bool):
            raise ModelError(f"config.json: {name} must be true or false, not {found!r}.")
        return found

    def activation(self, name: str, default: str) -> str:
        """The name of a non-linearity that the kernels know."""
        found = self.value(name, default)
        if not isinstance(found, str) or found not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ModelError(
                f"config.json: {name} is {found!r}, an activation that is not supported.",
                remedy=f"Supported are {known}.",
            )
        return found

    def refuse(self, **harmless: Any) -> None:
        """Raise for the first of these options that asks for something else than its harmless
        value.
        """
        for name, value in harmless.items():
            if (found := self.value(name, value)) != value:
                raise ModelError(f"config.json: {name} is {found!r}, which is not supported.")


def finite(what: str, found: Any) -> float:
    """`found` as a number. Raises `ModelError` if `what`, an option, is none, or is infinite."""
    if type(found) in (int, float):
        with contextlib.suppress(OverflowError):  # Python's integers have no end
            if math.isfinite(found):
                return float(found)
    raise ModelError(f"{what} must be a finite number, not {reprlib.repr(found)}.")
