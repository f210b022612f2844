"""One vector for a whole prompt: the mean of its tokens' hidden states.

That is what a model which was not trained to embed has to offer. As the vector is given the length
1, the sum will do.
"""

import torch
from torch import Tensor


def added_up(rows: Tensor, before: object | None) -> Tensor:
    """The sum of rows [T, H], behind that of those `before` them: float64 [H].

    They are added one after the other, so that it is the same however a prompt is cut.
    """
    summands = rows.double()
    if isinstance(before, Tensor):
        summands = torch.cat([before.unsqueeze(0), summands])
    return summands.cumsum(0)[-1]
