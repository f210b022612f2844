"""From logits to tokens in C++: one pass finds every block's largest logit, the others skip the
blocks that have nothing to say; thresholds come from histograms, and nothing is sorted or written.
"""

import torch
from torch import Tensor

import penstock.kernels.cpu._native as _native
from penstock.kernels.cpu.memory import address
from penstock.kernels.sampling.contract import Shaping


def argmax(logits: Tensor) -> Tensor:
    """The likeliest token of each row of logits, float32 [R, V]: int64 [R]."""
    rows, vocab_size = _checked(logits)
    token_ids = torch.empty(rows, dtype=torch.int64)
    _native.argmax(
        address(logits, "logits"), address(token_ids, "token_ids", torch.int64), rows, vocab_size
    )
    return token_ids


def draw(logits: Tensor, shaping: Shaping, uniforms: Tensor) -> Tensor:
    """Draw a token for each row of logits, float32 [R, V]: int64 [R]."""
    rows, vocab_size = _checked(logits)
    token_ids = torch.empty(rows, dtype=torch.int64)
    _native.draw(
        address(logits, "logits"),
        _column(shaping.temperature, "temperature", rows),
        _column(shaping.top_k, "top_k", rows),
        _column(shaping.top_p, "top_p", rows),
        _column(shaping.min_p, "min_p", rows),
        _column(shaping.typical_p, "typical_p", rows),
        _column(uniforms, "uniforms", rows, torch.float64),
        address(token_ids, "token_ids", torch.int64),
        rows,
        vocab_size,
    )
    return token_ids


def top_logprobs(
    logits: Tensor, chosen: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row of logits, float32 [R, V]: log probability and rank of the chosen token, then ids
    and log probabilities of the likeliest, equals in the order of their ids.
    """
    rows, vocab_size = _checked(logits)
    num_top = min(num_top, vocab_size)
    logprobs, values = torch.empty(rows), torch.empty(rows, num_top)
    ranks = torch.empty(rows, dtype=torch.int64)
    ids = torch.empty(rows, num_top, dtype=torch.int64)
    _native.top_logprobs(
        address(logits, "logits"),
        _column(chosen, "chosen", rows, torch.int64),
        address(logprobs, "logprobs"),
        address(ranks, "ranks", torch.int64),
        address(ids, "ids", torch.int64),
        address(values, "values"),
        rows,
        vocab_size,
        num_top,
    )
    return logprobs, ranks, ids, values


def _checked(logits: Tensor) -> tuple[int, int]:
    if logits.dim() != 2 or not logits.shape[1]:
        raise ValueError(f"Logits are [R, V] with V at least 1, not {list(logits.shape)}.")
    return logits.shape[0], logits.shape[1]


def _column(values: Tensor | None, name: str, rows: int, dtype: torch.dtype = torch.float32) -> int:
    if values is None:
        return 0
    if values.shape != (rows,):
        raise ValueError(f"{name} is {list(values.shape)} for {rows} rows of logits.")
    return address(values, name, dtype)
