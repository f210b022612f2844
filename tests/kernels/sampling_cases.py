"""Sampling: rows of logits of every awkward kind, and what is drawn from them by definition."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.sampling.contract import Shaping

NEVER = float("-inf")

Case = Callable[[torch.Generator], tuple[Any, ...]]


def numbers(row: Tensor) -> list[float]:
    return [NEVER if math.isnan(x) else x for x in row.tolist()]


def argmax(logits: Tensor) -> Tensor:
    found = [(row := numbers(each)).index(max(row)) for each in logits]
    return torch.tensor(found, dtype=torch.int64)


def probabilities(
    row: Tensor,
    temperature: float = 1.0,
    top_k: float = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical_p: float = 1.0,
) -> list[float]:
    """Of every token of a row that is not greedy, shaped step by step."""
    logits = numbers(row)
    best = max(logits)
    weights = [math.exp(max((x - best) / temperature, -1e3)) for x in logits]
    if 0 < top_k < len(weights):
        least = sorted(weights)[-int(top_k)]
        weights = [w if w >= least else 0.0 for w in weights]
    if top_p < 1:
        weights = _first(weights, [-w for w in weights], top_p)
    weights = [w if w >= min_p * max(weights) else 0.0 for w in weights]
    if typical_p < 1:
        total = sum(weights)
        surprise = [-math.log(w / total) if w else math.inf for w in weights]
        entropy = sum(w / total * s for w, s in zip(weights, surprise, strict=True) if w)
        weights = _first(weights, [abs(s - entropy) for s in surprise], typical_p)
    return [w / sum(weights) for w in weights]


def _first(weights: list[float], keys: list[float], share: float) -> list[float]:
    """The weights of the smallest keys, as few as hold the share, and what ties with the last."""
    held, last = 0.0, math.inf
    for key, weight in sorted(zip(keys, weights, strict=True)):
        held += weight / sum(weights)
        if held >= share:
            last = key
            break
    return [w if key <= last else 0.0 for key, w in zip(keys, weights, strict=True)]


def draw(logits: Tensor, shaping: Shaping, uniforms: Tensor) -> Tensor:
    greedy, drawn = argmax(logits).tolist(), []
    for number, row in enumerate(logits):
        columns = {name: getattr(shaping, name) for name in Shaping.__slots__}
        options = {
            name: column[number].item() for name, column in columns.items() if column is not None
        }
        if options.get("temperature") == 0 or not math.isfinite(row[greedy[number]]):
            drawn.append(greedy[number])
            continue
        left = uniforms[number].item()
        for token, probability in enumerate(probabilities(row, **options)):
            if probability:
                last = token
                left -= probability
                if left < 0:
                    break
        drawn.append(last)
    return torch.tensor(drawn, dtype=torch.int64)


def top_logprobs(logits: Tensor, chosen: Tensor, num_top: int) -> tuple[Tensor, ...]:
    log_probs = (
        torch.tensor([numbers(row) for row in logits]).view(logits.shape).double().log_softmax(1)
    )
    own = log_probs.gather(1, chosen[:, None])
    top = torch.sort(log_probs, dim=1, descending=True, stable=True)
    ranks = (log_probs > own).sum(1) + 1
    return own[:, 0], ranks, top.indices[:, :num_top], top.values[:, :num_top]


def shaping(**options: list[float]) -> Shaping:
    return Shaping(**{name: torch.tensor(values).float() for name, values in options.items()})


def rows(count: int, vocab_size: int, kind: str = "normal") -> Callable[[torch.Generator], Tensor]:
    """Logits [count, vocab_size]."""

    def build(generator: torch.Generator) -> Tensor:
        logits = torch.randn(count, vocab_size, generator=generator)
        if kind == "peaked":
            logits *= 8
        elif kind == "tied":
            logits = (2 * logits).round() / 2
        elif kind == "flat":
            logits = torch.full_like(logits, 3.25)
        elif kind == "masked":
            logits[torch.rand(logits.shape, generator=generator) < 0.9] = NEVER
            logits[:, vocab_size // 2] = 1.0
        elif kind == "all but one masked":
            kept = torch.randint(vocab_size, (count, 1), generator=generator)
            logits = torch.full_like(logits, NEVER).scatter(1, kept, -3.0)
        elif kind == "not numbers":
            logits[torch.rand(logits.shape, generator=generator) < 0.2] = math.nan
        return logits

    return build


KINDS = ("normal", "peaked", "tied", "flat", "masked", "all but one masked", "not numbers")
SIZES = (1, 2, 15, 63, 64, 65, 333, 1000)


def draw_case(logits: Callable[[torch.Generator], Tensor], **options: float) -> Case:
    """Every row with these options, and a number of its own."""

    def build(generator: torch.Generator) -> tuple[Any, ...]:
        made = logits(generator)
        columns = {name: [value] * len(made) for name, value in options.items()}
        uniforms = torch.rand(len(made), dtype=torch.float64, generator=generator)
        return made, shaping(**columns), uniforms

    return build


def top_case(logits: Callable[[torch.Generator], Tensor], num_top: int) -> Case:
    def build(generator: torch.Generator) -> tuple[Any, ...]:
        made = logits(generator)
        chosen = torch.randint(made.shape[1], (len(made),), generator=generator)
        return made, chosen, num_top

    return build


ARGMAX: Mapping[str, Case] = {
    "no row": lambda generator: (torch.zeros(0, 5),),
    "nothing to choose": lambda generator: (torch.full((1, 70), NEVER),),
    "nothing but what is no number": lambda generator: (torch.full((1, 70), math.nan),),
    "infinity": lambda generator: (torch.tensor([[1.0, math.inf, math.inf]]),),
    **{
        f"{kind} {size}": (lambda build: lambda generator: (build(generator),))(rows(7, size, kind))
        for kind in KINDS
        for size in SIZES
    },
}

DRAW: Mapping[str, Case] = {
    "no row": draw_case(rows(0, 5)),
    "nothing to draw": lambda generator: (
        torch.full((1, 70), NEVER),
        Shaping(),
        torch.tensor([0.5], dtype=torch.float64),
    ),
    "infinity": lambda generator: (
        torch.tensor([[1.0, math.inf, 3.0]]),
        shaping(top_p=[0.5]),
        torch.tensor([0.9], dtype=torch.float64),
    ),
    "the largest number there is": lambda generator: (
        torch.zeros(1, 70),
        Shaping(),
        torch.tensor([1 - 2.0**-53], dtype=torch.float64),
    ),
    **{f"{kind} {size}": draw_case(rows(7, size, kind)) for kind in KINDS for size in SIZES},
    "greedy": draw_case(rows(7, 100), temperature=0.0, top_k=3.0, typical_p=0.2),
    "cold": draw_case(rows(7, 100), temperature=0.01),
    "as cold as can be": draw_case(rows(7, 100), temperature=1e-42),
    "hot": draw_case(rows(7, 100), temperature=1e30),
    "top 1": draw_case(rows(7, 333), top_k=1.0),
    "top 5 of 333": draw_case(rows(7, 333), top_k=5.0),
    "top 300 of 333": draw_case(rows(7, 333), top_k=300.0),
    "top 333 of 333": draw_case(rows(7, 333), top_k=333.0),
    "top of many more": draw_case(rows(7, 333), top_k=2.0**62),
    "top of ties": draw_case(rows(50, 200, "tied"), top_k=20.0),
    "top of equals": draw_case(rows(50, 200, "flat"), top_k=20.0),
    "top of few": draw_case(rows(50, 200, "masked"), top_k=50.0),
    "tiny top_p": draw_case(rows(7, 333), top_p=1e-9),
    "half": draw_case(rows(50, 333), top_p=0.5),
    "half of equals": draw_case(rows(50, 200, "flat"), top_p=0.5),
    "half of ties": draw_case(rows(50, 200, "tied"), top_p=0.5),
    "nearly all": draw_case(rows(50, 333, "peaked"), top_p=0.999),
    "min_p": draw_case(rows(50, 333), min_p=0.3),
    "min_p of 1": draw_case(rows(50, 200, "tied"), min_p=1.0),
    "typical": draw_case(rows(50, 333), typical_p=0.3),
    "typical of a peak": draw_case(rows(50, 333, "peaked"), typical_p=0.9),
    "typical of equals": draw_case(rows(50, 100, "flat"), typical_p=0.3),
    "everything": draw_case(
        rows(50, 1000), temperature=0.8, top_k=100.0, top_p=0.9, min_p=0.05, typical_p=0.7
    ),
}

TOP_LOGPROBS: Mapping[str, Case] = {
    "no row": top_case(rows(0, 5), 2),
    "none": top_case(rows(3, 70), 0),
    "more than there are": top_case(rows(3, 5), 9),
    **{
        f"{kind} {size}": top_case(rows(7, size, kind), 5)
        for kind in ("normal", "peaked")
        for size in SIZES
    },
    "what is not drawn": top_case(rows(50, 100, "not numbers"), 20),
}
