"""What recording a computation means, whichever backend does it."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

Compute: TypeAlias = Callable[[], Tensor]
Record: TypeAlias = Callable[[Compute], Compute]
"""Turns a computation into one that replays what it recorded of it: the same kernels on the same
memory, whatever lies there by then. Raises `NotRecorded` for one that is more than that.
"""


class NotRecorded(Exception):
    """A computation that can only be computed as it stands. Says what in it is in the way."""


def no_recorder() -> Record | None:
    """Nothing records what torch computes."""
    return None
