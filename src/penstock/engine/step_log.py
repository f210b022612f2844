"""The steps of late, for any number of watchers."""

from collections import deque
from collections.abc import Callable
from itertools import islice

from penstock.vocabulary.messages import Step


class StepLog:
    """A ring of steps that all watchers share: each remembers only how far it has read.

    Whoever reads too seldom misses steps, and nothing is kept for him. `on_step` are called with
    every step as it comes, and miss none.
    """

    def __init__(self, size: int = 256) -> None:
        self.num_added = 0
        self.on_step: list[Callable[[Step], None]] = []
        self._steps: deque[Step] = deque(maxlen=size)

    def add(self, step: Step) -> None:
        """Note a step; the oldest makes room."""
        self._steps.append(step)
        self.num_added += 1
        for tell in self.on_step:
            tell(step)

    def after(self, num_read: int) -> list[Step]:
        """What came after the first `num_read` steps, as far as it is still here; oldest first."""
        num_new = min(self.num_added - num_read, len(self._steps))
        return list(islice(self._steps, len(self._steps) - num_new, None))
