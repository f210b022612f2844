"""Where a checkpoint keeps what a slot needs: module names, and the order of their rows.

A name stands for a module; the loader adds `.weight` and `.bias`. `{layer}` and `{expert}` in a
name are filled in with numbers.
"""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


class Joined:
    """Several modules whose outputs the slot holds one after another: queries, keys and values,
    say.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def arrange(self, rows: Tensor) -> list[Tensor]:
        """A module's rows in the slot's order, as views: as they are."""
        return [rows]


@dataclass(frozen=True)
class GroupedQkv:
    """One module whose rows are grouped by key-value head: its query heads, its key, its value,
    then the next.
    """

    name: str
    num_kv_heads: int
    head_dim: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def arrange(self, rows: Tensor) -> list[Tensor]:
        """A module's rows in the slot's order, as views: all queries, all keys, all values."""
        grouped = rows.view(self.num_kv_heads, -1, self.head_dim, *rows.shape[1:])
        return [
            part.flatten(0, 2) for part in (grouped[:, :-2], grouped[:, -2:-1], grouped[:, -1:])
        ]


@dataclass(frozen=True)
class PerExpert:
    """The three modules of each expert."""

    gate: str
    up: str
    down: str


Source: TypeAlias = str | Joined | GroupedQkv | PerExpert
