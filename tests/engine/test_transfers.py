"""What travels to a device in one piece arrives as it was."""

from typing import Any

import numpy as np
import pytest
import torch

from penstock.engine.transfers import LARGEST_KEPT, _Pinned, pack, packed_bytes, unpack

ARRAYS = [
    np.arange(5),
    np.zeros(0, np.int64),
    np.arange(6, dtype=np.int32).reshape(2, 3),
    np.array([0.25, -1.5]),
    np.arange(100, dtype=np.uint8).reshape(4, 25),
    np.arange(12).reshape(3, 4).T,
    np.array([3.5], np.float32),
]


def test_arrays_of_every_type_and_shape_come_out_as_they_went_in() -> None:
    memory = torch.full((packed_bytes(ARRAYS),), 77, dtype=torch.uint8)
    pack(ARRAYS, memory)
    for tensor, array in zip(unpack(memory, ARRAYS), ARRAYS, strict=True):
        assert tensor.numpy().dtype == array.dtype
        assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_a_piece_too(count: int) -> None:
    nothing = [np.zeros((2, 0))] * count
    memory = torch.empty(packed_bytes(nothing), dtype=torch.uint8)
    pack(nothing, memory)
    assert [tensor.shape for tensor in unpack(memory, nothing)] == [(2, 0)] * count


def test_each_begins_where_a_kernel_likes_it() -> None:
    memory = torch.empty(packed_bytes(ARRAYS), dtype=torch.uint8)
    starts = [tensor.data_ptr() - memory.data_ptr() for tensor in unpack(memory, ARRAYS)]
    assert all(start % 64 == 0 for start in starts)


def test_what_one_large_step_sends_is_not_kept_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def unpinned(*size: int, pin_memory: bool = False, **rest: Any) -> torch.Tensor:
        return empty(*size, **rest)

    monkeypatch.setattr(torch, "empty", unpinned)
    buffer = _Pinned()
    for num_bytes in (1, LARGEST_KEPT - 1, LARGEST_KEPT, 3 * LARGEST_KEPT, 64):
        assert buffer.room(num_bytes).numel() == num_bytes
        assert buffer.memory.numel() <= LARGEST_KEPT
