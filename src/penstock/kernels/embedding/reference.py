"""Looking up rows of a table in torch."""

from torch import Tensor
from torch.nn import functional


def embedding(row_ids: Tensor, table: Tensor) -> Tensor:
    """The rows of table [N, D] that row_ids [T] name: [T, D]."""
    return functional.embedding(row_ids, table)
