"""A config.json as families read it: typed, with defaults, and with errors that name the option."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.kernels.activation.reference import ACTIVATIONS
from penstock.vocabulary.errors import ModelError

_MISSING: Any = object()


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
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise ModelError(f"config.json: {name} must be a positive integer, not {found!r}.")
        return found

    def optional_integer(self, name: str) -> int | None:
        """A count or a size that may be null or absent."""
        return None if self.value(name, None) is None else self.integer(name)

    def number(self, name: str, default: Any = _MISSING) -> float:
        found = self.value(name, default)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ModelError(f"config.json: {name} must be a number, not {found!r}.")
        return float(found)

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
