"""Log probabilities of the model itself: before temperature, masks and penalties."""

import torch
from torch import Tensor

from penstock.kernels.ops import Ops
from penstock.vocabulary.messages import TokenLogprobs


def token_logprobs(
    logits: Tensor, token_ids: Tensor, num_top: list[int], ops: Ops
) -> list[TokenLogprobs]:
    """For each row of logits, float32 [R, V]: its token's log probability and rank, and its
    likeliest.

    `token_ids`: int64 [R]. `num_top`: how many of the likeliest each row reports.
    """
    if not num_top:
        return []
    logprobs, ranks, ids, values = ops.top_logprobs(logits, token_ids, max(num_top))
    table = zip(
        token_ids.tolist(),
        logprobs.tolist(),
        ranks.tolist(),
        ids.tolist(),
        values.tolist(),
        num_top,
        strict=True,
    )
    return [
        TokenLogprobs(token_id, logprob, rank, list(zip(ids[:count], values[:count], strict=True)))
        for token_id, logprob, rank, ids, values, count in table
    ]


def rows_of(logits: Tensor, rows: list[int]) -> Tensor:
    """A copy of some rows, made before sampling changes them in place."""
    return logits[torch.tensor(rows, device=logits.device)]
