"""The conformance table as Triton's interpreter can bear it: it is thousands of times slower than a
GPU.
"""

from dataclasses import fields
from typing import Any

from penstock.kernels.sampling.contract import Shaping
from tests.kernels.table import TABLE

TOO_LONG = {
    "a context of 5,000",
    "a context of 5,000, capped, with sinks",
    "contexts of 1 and of 5,000",
    "heads of 128",
    "heads of 256, capped",
}
"""Attention over thousands of keys; tests/kernels/test_triton.py cuts short contexts instead."""
MOST_ROWS = 7
"""Of logits; every row is computed alone."""

EVERY_CASE = [
    (op, name) for op, entry in TABLE.items() for name in entry.cases if name not in TOO_LONG
]


def shortened(op: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a case, of the first rows of logits alone."""
    if op not in ("argmax", "draw", "top_logprobs"):
        return values
    return tuple(_first(value) for value in values)


def _first(value: Any) -> Any:
    if isinstance(value, Shaping):
        columns = {each.name: getattr(value, each.name) for each in fields(Shaping)}
        return Shaping(
            **{name: None if c is None else c[:MOST_ROWS] for name, c in columns.items()}
        )
    return value if isinstance(value, int) else value[:MOST_ROWS]
