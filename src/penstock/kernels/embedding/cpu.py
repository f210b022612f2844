"""Looking up rows of a table in C++: copied and widened in one pass, without a copy in between."""

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address, empty

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def embedding(row_ids: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of table [N, D], of any of three types, that row_ids [T] name: float32 [T, D].

    Raises IndexError for an id that the table has no row for.
    """
    if dtype is not torch.float32 or table.dtype not in _KINDS:
        raise ValueError(
            f"Kernels look up float32 in halves or float32, not {dtype} in {table.dtype}."
        )
    if row_ids.dim() != 1 or table.dim() != 2:
        raise ValueError(
            f"Ids {list(row_ids.shape)} and table {list(table.shape)} are not [T], [N, D]."
        )
    out = empty(len(row_ids), table.shape[1])
    _native.embedding(
        address(row_ids, "row_ids", torch.int64),
        address(table, "table", table.dtype),
        address(out, "out"),
        len(row_ids),
        table.shape[0],
        table.shape[1],
        _KINDS[table.dtype],
    )
    return out
