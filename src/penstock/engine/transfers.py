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
NUM_BUFFERS = 64
"""Pinned buffers that take turns: more than two steps need, however many options their requests
have, since what a step sends waits behind the step before it, and nobody is to wait for that.
"""
LARGEST_KEPT = 2**20
"""Bytes of a buffer at most: 64 that have each held a large batch's penalties or watermarks would
come to gigabytes. Torch keeps larger pieces until they are sent, and gives them out again.
"""


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
        self._buffers = [_Pinned() for _ in range(NUM_BUFFERS)]
        self._turn = 0

    def to_device(self, arrays: Sequence[Array]) -> list[Tensor]:
        self._turn = (self._turn + 1) % NUM_BUFFERS
        buffer = self._buffers[self._turn]
        staged = buffer.room(packed_bytes(arrays))
        pack(arrays, staged)
        sent = staged.to(self.device, non_blocking=True)
        buffer.sent = torch.cuda.current_stream(self.device).record_event()
        return unpack(sent, arrays)

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
        if num_bytes > LARGEST_KEPT:
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        if self.sent is not None:
            self.sent.synchronize()
        if self.memory.numel() < num_bytes:
            size = min(2 * num_bytes, LARGEST_KEPT)
            self.memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self.memory[:num_bytes]


def transfers_for(device: torch.device) -> Transfers:
    """What fits the device."""
    return PinnedTransfers(device) if device.type == "cuda" else Transfers(device)


def packed_bytes(arrays: Sequence[Array]) -> int:
    """What arrays take in one piece of memory, each beginning at an aligned place."""
    return sum(_aligned(array.nbytes) for array in arrays)


def pack(arrays: Sequence[Array], memory: Tensor) -> None:
    """Copy arrays into one piece of memory, uint8."""
    place, start = memory.numpy(), 0
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        place[start : start + array.nbytes] = flat
        start += _aligned(array.nbytes)


def unpack(memory: Tensor, arrays: Sequence[Array]) -> list[Tensor]:
    """Tensors like the arrays, over memory into which these were packed."""
    tensors, start = [], 0
    for array in arrays:
        dtype: torch.dtype = getattr(torch, array.dtype.name)
        part = memory[start : start + array.nbytes]
        tensors.append(part.view(dtype).view(array.shape))
        start += _aligned(array.nbytes)
    return tensors


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
