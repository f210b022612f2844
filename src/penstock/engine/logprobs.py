"""Log probabilities of the model itself: before temperature, masks and penalties."""

from dataclasses import dataclass

from torch import Tensor

from penstock.engine.transfers import Arrival, Transfers
from penstock.kernels.ops import Ops
from penstock.vocabulary.messages import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Reported:
    """Log probabilities that are being computed. `num_top`: how many of the likeliest each of R
    rows reports.
    """

    num_top: list[int]
    arrival: Arrival

    def entries(self) -> list[TokenLogprobs]:
        """For each row, its token's log probability and rank, and its likeliest."""
        columns = [tensor.tolist() for tensor in self.arrival.wait()]
        return [
            TokenLogprobs(
                token_id, logprob, rank, list(zip(ids[:count], values[:count], strict=True))
            )
            for token_id, logprob, rank, ids, values, count in zip(
                *columns, self.num_top, strict=True
            )
        ]


def report(
    logits: Tensor, token_ids: Tensor, num_top: list[int], ops: Ops, transfers: Transfers
) -> Reported:
    """Begin to compute what is reported of rows of logits, float32 [R, V], and the token that
    follows each, int64 [R].
    """
    tensors = ops.top_logprobs(logits, token_ids, max(num_top))
    return Reported(num_top, transfers.to_host([token_ids, *tensors]))
