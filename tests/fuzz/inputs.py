"""What every fuzzer is made of: how long it looks for an input, and inputs of general use."""

import asyncio
import os
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

GUIDED = "PENSTOCK_FUZZ"
"""The environment variable that `scripts/fuzz` sets: then failures are kept, to be made small."""
FOUND = "=== found ==="
"""What a guided fuzzer says before it tells what it has found."""

BRIEFLY = settings(
    max_examples=60,
    derandomize=GUIDED not in os.environ,  # the same inputs in every run of the tests
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@cache
def runner() -> asyncio.Runner:
    """The event loop of all inputs: a new one for each would take longer than the input."""
    return asyncio.Runner()


# What parsers of lines, of JSON or of UTF-8 have taken for something else before.
AWKWARD = [
    *("\n", "\r", "\r\n", "\n\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"),
    *("\u2029", "\0", "\x7f", "\ufeff", "\ufffd", "\uffff", "\U0001f600", "e\u0301", " ", "  "),
    *("data: ", "event: x", "id: 1", ":", "retry: 0", "[DONE]", "data: [DONE]\n\n", '"', "\\"),
    *("\\u2028", "\\n", "{", "}", "null", "a", "日", "<", "%", "&"),
]


def texts_of(fragments: list[str], *, max_size: int = 20) -> st.SearchStrategy[str]:
    """Fragments in any order, with anything in between."""
    parts = st.sampled_from(fragments) | st.text(max_size=4)
    return st.lists(parts, max_size=max_size).map("".join)


texts = texts_of(AWKWARD)


@st.composite
def cut(draw: st.DrawFn, wholes: st.SearchStrategy[Any]) -> tuple[Any, list[Any]]:
    """(a text or a list, its pieces)."""
    whole = draw(wholes)
    places = [0, *sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8))), len(whole)]
    return whole, [whole[begin:end] for begin, end in pairwise(places)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(AWKWARD) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after a few accidents: bytes lost, changed, repeated or come from nowhere."""
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 9)))
        data = data[:begin] + draw(st.binary(max_size=9)) + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
