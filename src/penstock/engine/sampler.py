"""From logits to tokens: masks and penalties, one function each, in the order in which they apply;
then a draw.

Every function takes logits, float32 [R, V] of R rows over V tokens, and the rows' options, and
returns logits that it may have changed in place. A row's result never depends on the other rows.
"""

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from penstock.engine.sampling_rows import SamplingRows
from penstock.kernels.ops import Ops
from penstock.scheduling.sequence import Sequence

NEVER = float("-inf")


def prefer_green(logits: Tensor, rows: SamplingRows) -> Tensor:
    """watermark: green tokens gain, so that there are more of them than chance would have."""
    row, bias = rows.marked(logits.shape[1])
    logits[row] += bias
    return logits


def follow_grammar(logits: Tensor, rows: SamplingRows) -> Tensor:
    """grammar: only tokens with which the text can still become one that follows it."""
    row, bits = rows.grammar_bits()
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    allowed = (bits.unsqueeze(2) >> places & 1).bool().flatten(1)[:, : logits.shape[1]]
    logits[row] = logits[row].masked_fill_(~allowed, NEVER)
    return logits


def allow(logits: Tensor, rows: SamplingRows) -> Tensor:
    """allowed_token_ids: no other token may be drawn."""
    restricted = [i for i, each in enumerate(rows.params) if each.allowed_token_ids is not None]
    row, token = rows.cells(lambda seq: seq.request.sampling.allowed_token_ids or ())
    allowed = logits[row, token]
    logits.index_fill_(0, rows.tensor(np.array(restricted)), NEVER)
    logits[row, token] = allowed
    return logits


def ban(logits: Tensor, rows: SamplingRows) -> Tensor:
    """banned_token_ids: never drawn."""
    return _forbid(logits, rows.cells(lambda seq: seq.request.sampling.banned_token_ids))


def hold_back_the_end(logits: Tensor, rows: SamplingRows) -> Tensor:
    """min_tokens: nothing that would end the sequence before that, unless nothing else is allowed.
    A constraint sees to it itself, since it may leave nothing but the end.
    """

    def ends(sequence: Sequence) -> Collection[int]:
        if sequence.may_end or sequence.constraint is not None:
            return ()
        params = sequence.request.sampling
        ends = {*sequence.end_token_ids, *params.stop_token_ids}
        allowed = params.allowed_token_ids
        if allowed is not None and ends.issuperset(
            set(allowed).difference(params.banned_token_ids)
        ):
            return ()
        return ends

    return _forbid(logits, rows.cells(ends))


def _forbid(logits: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
    """The number is made on the device: to send it there would wait for all that came before."""
    return logits.index_put_(cells, logits.new_full((), NEVER))


def add_bias(logits: Tensor, rows: SamplingRows) -> Tensor:
    """logit_bias: added as it is."""
    row, token = rows.cells(lambda seq: seq.request.sampling.logit_bias)
    bias = [value for params in rows.params for value in params.logit_bias.values()]
    logits[row, token] += rows.tensor(np.array(bias, np.float32))
    return logits


def penalise_repetition(logits: Tensor, rows: SamplingRows) -> Tensor:
    """repetition_penalty (CTRL, arXiv 1909.05858): tokens of prompt and output, however often."""
    row, token = rows.seen("repetition_penalty", in_prompt=True)
    penalty = rows.column("repetition_penalty")[row]
    seen = logits[row, token]  # a token that occurs twice is read twice before it is written twice
    logits[row, token] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def penalise_frequency(logits: Tensor, rows: SamplingRows) -> Tensor:
    """frequency_penalty: subtracted each time that a token occurs in the output."""
    row, token = rows.seen("frequency_penalty")
    penalty = rows.column("frequency_penalty")[row]
    return logits.index_put_((row, token), -penalty, accumulate=True)


def penalise_presence(logits: Tensor, rows: SamplingRows) -> Tensor:
    """presence_penalty: subtracted once for every token of the output."""
    row, token = rows.seen("presence_penalty")
    logits[row, token] = logits[row, token] - rows.column("presence_penalty")[row]
    return logits


Step = Callable[[Tensor, SamplingRows], Tensor]

MASKS_AND_PENALTIES: tuple[tuple[tuple[str, ...], Step], ...] = (
    (("watermark",), prefer_green),
    (("grammar",), follow_grammar),
    (("allowed_token_ids",), allow),
    (("banned_token_ids",), ban),
    (("min_tokens",), hold_back_the_end),
    (("logit_bias",), add_bias),
    (("repetition_penalty",), penalise_repetition),
    (("frequency_penalty",), penalise_frequency),
    (("presence_penalty",), penalise_presence),
)
"""Options that bear on greedy rows too, each with what applies it. What greedy rows do not heed is
`Shaping`'s.
"""


def sample(logits: Tensor, rows: SamplingRows, ops: Ops) -> Tensor:
    """Choose one token for each row: int64 [R]. `logits`, float32 [R, V], is used up."""
    for options, step in MASKS_AND_PENALTIES:
        if rows.any_set(*options):
            logits = step(logits, rows)
    if all(params.is_greedy for params in rows.params):
        return ops.argmax(logits)
    return ops.draw(logits, rows.shaping(), rows.uniforms())
