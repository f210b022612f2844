"""How a step's numbers reach the device, and its results the host, without either waiting.

On a CPU nothing has to travel. For a GPU, numbers are put together in pinned memory and sent in one
piece, and results come back into pinned memory behind an event: whoever wants them waits for that,
which is long past when the next step has been planned in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.generic]
_ALIGNMENT = 64
_NUM_BUFFERS = 4
"""Pinned buffers that take turns, so that one is hardly ever waited for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Tensors on their way to the host."""

    tensors: list[Tensor]
    event: torch.cuda.Event | None = None

    def wait(self) -> list[Tensor]:
        """The tensors, once they are there."""
        if self.event is not None:
            self.event.synchronize()
        return self.tensors


class Transfers:
    """To and from a CPU, that is, nowhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def to_device(self, arrays: Sequence[Array]) -> list[Tensor]:
        """The arrays as tensors on the device, in stream order."""
        return [torch.from_numpy(array).to(self.device) for array in arrays]

    def to_host(self, tensors: Sequence[Tensor]) -> Arrival:
        """What these tensors hold at this point of the stream."""
        return Arrival([tensor.cpu() for tensor in tensors])


class PinnedTransfers(Transfers):
    """To and from a GPU. For one thread and one stream."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._buffers = [_Pinned() for _ in range(_NUM_BUFFERS)]
        self._turn = 0

    def to_device(self, arrays: Sequence[Array]) -> list[Tensor]:
        self._turn = (self._turn + 1) % _NUM_BUFFERS
        starts, total = _places(arrays)
        buffer = self._buffers[self._turn]
        staged = buffer.room(total)
        for start, array in zip(starts, arrays, strict=True):
            staged.numpy()[start : start + array.nbytes] = (
                np.ascontiguousarray(array).view(np.uint8).reshape(-1)
            )
        sent = staged.to(self.device, non_blocking=True)
        buffer.sent = torch.cuda.current_stream(self.device).record_event()
        return [
            sent[start : start + array.nbytes].view(_type_of(array)).view(array.shape)
            for start, array in zip(starts, arrays, strict=True)
        ]

    def to_host(self, tensors: Sequence[Tensor]) -> Arrival:
        copies = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors
        ]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        return Arrival(copies, torch.cuda.current_stream(self.device).record_event())


class _Pinned:
    """Memory that the device may read while the host goes on, and when it has been read."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.sent: torch.cuda.Event | None = None

    def room(self, num_bytes: int) -> Tensor:
        """So many bytes that nobody reads any more."""
        if self.sent is not None:
            self.sent.synchronize()
        if self.memory.numel() < num_bytes:
            self.memory = torch.empty(2 * num_bytes, dtype=torch.uint8, pin_memory=True)
        return self.memory[:num_bytes]


def transfers_for(device: torch.device) -> Transfers:
    """What fits the device."""
    return PinnedTransfers(device) if device.type == "cuda" else Transfers(device)


def _places(arrays: Sequence[Array]) -> tuple[list[int], int]:
    """Where each array begins in one piece of memory, and how long that is."""
    starts, end = [], 0
    for array in arrays:
        starts.append(end)
        end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return starts, end


def _type_of(array: Array) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, array.dtype.name)
    return dtype
