"""Looking up rows of a table on a GPU: gathered and converted in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.triton.target import check_rows, power_of_two

_WIDEST_BLOCK = 4096


@triton.jit
def _gather(row_ids, table, out, num_rows, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(row_ids + row)
    is_there = (columns < width) & (source >= 0) & (source < num_rows)
    values = tl.load(table + source * width + columns, mask=is_there, other=0.0)
    tl.store(out + row * width + columns, values.to(out.dtype.element_ty), mask=columns < width)


def embedding(row_ids: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of table [N, D], of any float type, that row_ids [T] int64 name: [T, D] in dtype.

    A row that the table does not have is zeros: nothing on the device can raise an error.
    """
    row_ids = check_rows(row_ids, "row_ids", None)
    table = check_rows(table, "table", None, None)
    out = torch.empty(len(row_ids), table.shape[1], dtype=dtype, device=table.device)
    block = min(_WIDEST_BLOCK, power_of_two(table.shape[1]))
    if len(row_ids):
        grid = (len(row_ids), triton.cdiv(table.shape[1], block))
        _gather[grid](row_ids, table, out, *table.shape, BLOCK=block)
    return out
