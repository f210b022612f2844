"""From logits to tokens: one function per sampling option, in the order in which they apply.

Every function takes logits, float32 [R, V] of R rows over V tokens, and the rows' options, and
returns logits that it may have changed in place. A row's result never depends on the other rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.engine.randomness import uniforms
from penstock.engine.sampling_rows import SamplingRows

NEVER = float("-inf")
_HEAD = 1024  # how many of the likeliest tokens are sorted before sorting the whole vocabulary


def follow_grammar(logits: Tensor, rows: SamplingRows) -> Tensor:
    """grammar: only tokens with which the text can still become one that follows it."""
    row, bits = rows.grammar_bits()
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    allowed = (bits.unsqueeze(2) >> places & 1).bool().flatten(1)[:, : logits.shape[1]]
    logits[row] = logits[row].masked_fill_(~allowed, NEVER)
    return logits


def allow(logits: Tensor, rows: SamplingRows) -> Tensor:
    """allowed_token_ids: no other token may be drawn."""
    restricted = [params.allowed_token_ids is not None for params in rows.params]
    row, token = rows.cells(lambda seq: seq.request.sampling.allowed_token_ids or ())
    allowed = torch.ones_like(logits, dtype=torch.bool)
    allowed[torch.tensor(restricted, device=logits.device)] = False
    allowed[row, token] = True
    return logits.masked_fill_(~allowed, NEVER)


def ban(logits: Tensor, rows: SamplingRows) -> Tensor:
    """banned_token_ids: never drawn."""
    logits[rows.cells(lambda seq: seq.request.sampling.banned_token_ids)] = NEVER
    return logits


def hold_back_the_end(logits: Tensor, rows: SamplingRows) -> Tensor:
    """min_tokens: nothing that would end the sequence before that. A constraint sees to it itself,
    since it may leave nothing but the end.
    """
    logits[
        rows.cells(
            lambda seq: (
                ()
                if seq.may_end or seq.constraint is not None
                else [*seq.end_token_ids, *seq.request.sampling.stop_token_ids]
            )
        )
    ] = NEVER
    return logits


def add_bias(logits: Tensor, rows: SamplingRows) -> Tensor:
    """logit_bias: added as it is."""
    row, token = rows.cells(lambda seq: seq.request.sampling.logit_bias)
    bias = [value for params in rows.params for value in params.logit_bias.values()]
    logits[row, token] += torch.tensor(bias, dtype=logits.dtype, device=logits.device)
    return logits


def penalise_repetition(logits: Tensor, rows: SamplingRows) -> Tensor:
    """repetition_penalty (CTRL, arXiv 1909.05858): tokens of prompt and output, however often."""
    row, token, _ = _counted(rows.cells(lambda seq: seq.token_ids), logits.shape[1])
    penalty = rows.column("repetition_penalty")[row, 0]
    seen = logits[row, token]
    logits[row, token] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def penalise_presence_and_frequency(logits: Tensor, rows: SamplingRows) -> Tensor:
    """presence_penalty once, frequency_penalty each time, for tokens of the output alone."""
    output = rows.cells(lambda seq: seq.token_ids[seq.prompt_len :])
    row, token, count = _counted(output, logits.shape[1])
    presence, frequency = rows.column("presence_penalty"), rows.column("frequency_penalty")
    logits[row, token] -= presence[row, 0] + frequency[row, 0] * count
    return logits


def divide_by_temperature(logits: Tensor, rows: SamplingRows) -> Tensor:
    """temperature: greedy rows are left as they are, since dividing does not change which is
    likeliest.
    """
    temperature = rows.column("temperature")
    return logits.div_(torch.where(temperature == 0, 1.0, temperature))


def keep_top_k(logits: Tensor, rows: SamplingRows) -> Tensor:
    """top_k: tokens as likely as the k-th stay."""
    k = rows.column("top_k").long()
    k = torch.where(k <= 0, logits.shape[1], k.clamp(max=logits.shape[1]))
    limited = k[k < logits.shape[1]]
    if not len(limited):
        return logits
    best = logits.topk(int(limited.max()), dim=1).values
    least = best.gather(1, (k - 1).clamp(max=best.shape[1] - 1))
    return logits.masked_fill_((logits < least) & (k < logits.shape[1]), NEVER)


def keep_top_p(logits: Tensor, rows: SamplingRows) -> Tensor:
    """top_p (arXiv 1904.09751): the fewest likeliest tokens that hold this probability."""
    return _keep_mass(logits, logits.log_softmax(1), rows.column("top_p"))


def keep_min_p(logits: Tensor, rows: SamplingRows) -> Tensor:
    """min_p (arXiv 2407.01082): tokens at least this likely relative to the likeliest."""
    least = logits.amax(1, keepdim=True) + rows.column("min_p").log()
    return logits.masked_fill_(logits < least, NEVER)


def keep_typical(logits: Tensor, rows: SamplingRows) -> Tensor:
    """typical_p (arXiv 2202.00666): the smallest set of tokens whose surprise is nearest to the
    entropy.
    """
    log_probs = logits.log_softmax(1)
    entropy = -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(1, keepdim=True)
    atypical = (-log_probs - entropy).abs()
    return _keep_mass(logits, -atypical, rows.column("typical_p"))


def draw(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Token ids, int64 [R], drawn by inverse transform sampling.

    One uniform number per row, keyed by (seed, index, position), is looked up in the cumulated
    probabilities in the order of the vocabulary.
    """
    cumulated = logits.softmax(1, dtype=torch.float64).cumsum(1)
    threshold = uniforms(*rows.uniform_keys()).unsqueeze(1) * cumulated[:, -1:]
    drawn = torch.searchsorted(cumulated, threshold, right=True).squeeze(1)
    return drawn.clamp(max=logits.shape[1] - 1)


Step = Callable[[Tensor, SamplingRows], Tensor]

MASKS_AND_PENALTIES: tuple[tuple[tuple[str, ...], Step], ...] = (
    (("grammar",), follow_grammar),
    (("allowed_token_ids",), allow),
    (("banned_token_ids",), ban),
    (("min_tokens",), hold_back_the_end),
    (("logit_bias",), add_bias),
    (("repetition_penalty",), penalise_repetition),
    (("presence_penalty", "frequency_penalty"), penalise_presence_and_frequency),
)
"""Options that bear on greedy rows too, each with what applies it."""

SHAPING: tuple[tuple[tuple[str, ...], Step], ...] = (
    (("temperature",), divide_by_temperature),
    (("top_k",), keep_top_k),
    (("top_p",), keep_top_p),
    (("min_p",), keep_min_p),
    (("typical_p",), keep_typical),
)
"""Options that greedy rows do not heed: the likeliest token is theirs."""


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Draw one token for each row: int64 [R]. `logits`, float32 [R, V], is used up."""
    logits = _apply(MASKS_AND_PENALTIES, logits, rows)
    likeliest = logits.argmax(1)
    if all(params.is_greedy for params in rows.params):
        return likeliest
    drawn = draw(_apply(SHAPING, logits, rows), rows)
    return torch.where(rows.column("temperature")[:, 0] == 0, likeliest, drawn)


def _apply(
    steps: tuple[tuple[tuple[str, ...], Step], ...], logits: Tensor, rows: SamplingRows
) -> Tensor:
    for options, step in steps:
        if rows.any_set(*options):
            logits = step(logits, rows)
    return logits


def _counted(cells: tuple[Tensor, Tensor], vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each (row, token) once, and how often it occurred."""
    row, token = cells
    key, count = torch.unique(row * vocab_size + token, return_counts=True)
    return key // vocab_size, key % vocab_size, count


def _keep_mass(logits: Tensor, order: Tensor, mass: Tensor) -> Tensor:
    """Keep, of each row, the first tokens by `order` (highest first) whose probabilities reach
    `mass` [R, 1].

    Sorting a vocabulary is slow and rarely needed: the head alone is tried first. Tokens that tie
    with the last one kept stay too, so that the result does not depend on how a sort breaks ties.
    """
    probs = logits.softmax(1)
    for width in (min(_HEAD, logits.shape[1]), logits.shape[1]):
        best = order.topk(width, dim=1)
        reached = probs.gather(1, best.indices).cumsum(1)
        if width == logits.shape[1] or bool((reached[:, -1:] >= mass).logical_or(mass == 1).all()):
            break
    num_kept = (reached < mass).sum(1, keepdim=True) + 1
    last = best.values.gather(1, num_kept.clamp(max=width) - 1)
    return logits.masked_fill_((order < last) & (mass < 1), NEVER)
