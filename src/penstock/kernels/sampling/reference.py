"""From logits to tokens in torch."""

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.kernels.sampling.contract import Shaping

NEVER = float("-inf")
_HEAD = 1024  # how many of the likeliest tokens are sorted before sorting the whole vocabulary


def argmax(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits, float32 [R, V]: int64 [R].

    The first of equals; NaN counts as minus infinity.
    """
    return _numbers(logits).argmax(1)


def draw(logits: Tensor, shaping: Shaping, uniforms: Tensor) -> Tensor:
    """Draw a token for each row of logits, float32 [R, V], shaped as its options say: int64 [R].

    Inverse transform sampling: a row's number of uniforms, float64 [R] in [0, 1), is looked up in
    its cumulated probabilities, in the order of the vocabulary. What is minus infinity or NaN is
    never drawn. Greedy rows take their `argmax`, and so do those whose likeliest logit is not
    finite. A row's token never depends on the other rows. logits stay as they are.
    """
    likeliest = argmax(logits)
    logits = _numbers(logits)
    best = logits.gather(1, likeliest.unsqueeze(1))
    is_finite = best.isfinite()
    logits = torch.where(is_finite, logits - best, 0.0)
    for name, step in SHAPING:
        column = getattr(shaping, name)
        if column is not None:
            logits = step(logits, column.unsqueeze(1))
    drawn = torch.where(is_finite.squeeze(1), _look_up(logits, uniforms), likeliest)
    if shaping.temperature is None:
        return drawn
    return torch.where(shaping.temperature == 0, likeliest, drawn)


def top_logprobs(
    logits: Tensor, chosen: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row of logits, float32 [R, V]: the log probability (float32 [R]) and rank (int64 [R],
    1 for the likeliest) of the chosen token (int64 [R]), then the ids (int64 [R, N]) and log
    probabilities (float32 [R, N]) of the likeliest.

    N is num_top, or V where that is less; likeliest first, equals in any order. NaN counts as minus
    infinity.
    """
    logits = _numbers(logits)
    total = logits.logsumexp(1, keepdim=True)
    own = logits.gather(1, chosen.unsqueeze(1))
    ranks = (logits > own).sum(1) + 1
    top = logits.topk(min(num_top, logits.shape[1]), dim=1)
    return (own - total).squeeze(1), ranks, top.indices, top.values - total


def _numbers(logits: Tensor) -> Tensor:
    return logits.nan_to_num(nan=NEVER, posinf=-NEVER, neginf=NEVER)


def _divide_by_temperature(logits: Tensor, temperature: Tensor) -> Tensor:
    return logits / torch.where(temperature == 0, 1.0, temperature)


def _keep_top_k(logits: Tensor, top_k: Tensor) -> Tensor:
    k = top_k.long()
    k = torch.where(k <= 0, logits.shape[1], k.clamp(max=logits.shape[1]))
    limited = k[k < logits.shape[1]]
    if not len(limited):
        return logits
    best = logits.topk(int(limited.max()), dim=1).values
    least = best.gather(1, (k - 1).clamp(max=best.shape[1] - 1))
    return logits.masked_fill((logits < least) & (k < logits.shape[1]), NEVER)


def _keep_top_p(logits: Tensor, top_p: Tensor) -> Tensor:
    return _keep_mass(logits, logits, top_p)


def _keep_min_p(logits: Tensor, min_p: Tensor) -> Tensor:
    return logits.masked_fill(logits < logits.amax(1, keepdim=True) + min_p.log(), NEVER)


def _keep_typical(logits: Tensor, typical_p: Tensor) -> Tensor:
    log_probs = logits.log_softmax(1)
    entropy = -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(1, keepdim=True)
    return _keep_mass(logits, -(log_probs + entropy).abs(), typical_p)


SHAPING: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("temperature", _divide_by_temperature),
    ("top_k", _keep_top_k),
    ("top_p", _keep_top_p),
    ("min_p", _keep_min_p),
    ("typical_p", _keep_typical),
)
"""What applies each option of `Shaping`: from logits [R, V] and a column [R, 1] to logits."""


def _keep_mass(logits: Tensor, order: Tensor, mass: Tensor) -> Tensor:
    """Keep, of each row, the first tokens by `order` (highest first) whose probabilities reach
    `mass` [R, 1].

    Sorting a vocabulary is slow and rarely needed: the head alone is tried first.
    """
    probs = logits.softmax(1)
    for width in (min(_HEAD, logits.shape[1]), logits.shape[1]):
        best = order.topk(width, dim=1)
        reached = probs.gather(1, best.indices).cumsum(1, dtype=torch.float64)
        if width == logits.shape[1] or bool((reached[:, -1:] >= mass).logical_or(mass == 1).all()):
            break
    num_kept = (reached < mass).sum(1, keepdim=True) + 1
    last = best.values.gather(1, num_kept.clamp(max=width) - 1)
    return logits.masked_fill((order < last) & (mass < 1), NEVER)


def _look_up(logits: Tensor, uniforms: Tensor) -> Tensor:
    cumulated = logits.softmax(1, dtype=torch.float64).cumsum(1)
    total = cumulated[:, -1:]
    # A number just below 1 must not round up to the total: nothing lies beyond it.
    sought = torch.minimum(uniforms.unsqueeze(1) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulated, sought, right=True).squeeze(1)
