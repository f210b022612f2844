"""Looking up rows of a table in torch."""

from torch.nn import functional
from torch import Tensor


def embedding(row_ids: Tensor, table: Tensor) -> Tensor:
    """The rows of table [N, D] that row_ids [T] name: [T, D]."""
    return functional.embedding(row_ids, table)
