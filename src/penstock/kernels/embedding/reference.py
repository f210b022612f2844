"""Looking up rows of a table in torch."""

import torch
from torch import Tensor
from torch.nn import functional


def embedding(row_ids: Tensor, table: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of table [N, D], of any float type, that row_ids [T] int64 name: [T, D] in dtype."""
    return functional.embedding(row_ids, table).to(dtype)
