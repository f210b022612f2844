"""How a tensor's memory crosses to a kernel: as an address, once it is certain what lies there; and
where results lie, which a recording must know.
"""

import math
import mmap
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64


def address(tensor: Tensor, name: str, dtype: torch.dtype = torch.float32) -> int:
    """Where a dense CPU tensor's elements begin. Raises ValueError for any other tensor."""
    if tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(
            f"{name} is {tensor.dtype} of strides {tensor.stride()} on {tensor.device}; "
            f"kernels take dense {dtype} on the CPU."
        )
    return tensor.data_ptr()


class ArenaFull(Exception):
    """A recorded step takes more memory than there is for it."""


class Arena:
    """Places in memory that stays where it is. A place is free again when its tensor is gone, so
    that a computation takes as much as it has tensors at a time, every time the same places.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._taken: dict[int, int] = {}
        """Where places begin and end."""

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Uninitialised float32. Raises `ArenaFull` where there is no room."""
        count = math.prod(shape)
        num_bytes = max(1, -(-count * 4 // _ALIGNMENT)) * _ALIGNMENT
        start = 0
        for begin, end in sorted(self._taken.items()):
            if begin - start >= num_bytes:
                break
            start = end
        if start + num_bytes > len(self._memory):
            raise ArenaFull
        array = np.frombuffer(self._memory, np.float32, count, start)
        self._taken[start] = start + num_bytes
        weakref.finalize(array, self._taken.pop, start)
        return torch.from_numpy(array).view(shape)


_arena: ContextVar[Arena | None] = ContextVar("arena", default=None)


@contextmanager
def results_in(arena: Arena) -> Iterator[None]:
    """Have what kernels compute in this thread lie there meanwhile."""
    token = _arena.set(arena)
    try:
        yield
    finally:
        _arena.reset(token)


def empty(*shape: int) -> Tensor:
    """An uninitialised float32 tensor for a result."""
    arena = _arena.get()
    return torch.empty(shape) if arena is None else arena.empty(shape)
