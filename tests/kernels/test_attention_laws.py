"""The CPU's attention computes the same bits whatever else happens in a step, for every instruction
set and type of cache.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.kv_cache.contract import CPU_KV_DTYPES
from penstock.kernels.ops import LayerKV
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout
from tests.kernels.instruction_sets import ISAS, cpu_ops
from tests.kernels.paged_cache import BLOCK_SIZE, filled_cache
from tests.paged_steps import Row, lay_out, scattered_rows

pytestmark = [
    pytest.mark.skipif(not ISAS, reason="no kernels were built for this processor"),
    pytest.mark.parametrize("backend", ISAS),
]
every_dtype = pytest.mark.parametrize("dtype", CPU_KV_DTYPES)
every_kind = pytest.mark.parametrize(
    "kind",
    [
        {"heads": (14, 2), "size": 64},
        {"heads": (4, 4), "size": 8, "biased": True},
        {"heads": (6, 1), "size": 80, "window": 45},
        {"heads": (3, 1), "size": 20, "window": 700, "biased": True},
        {"heads": (6, 2), "size": 24, "soft_cap": 4.0, "sinks": True},
    ],
    ids=str,
)
LONGEST = 1100
"""More than two of the ranges that long contexts are cut into."""


class Prompts:
    """Sequences of these lengths, whose keys and values are in a cache."""

    def __init__(
        self,
        lengths: list[int],
        dtype: str,
        heads: tuple[int, int],
        size: int,
        *,
        window: int | None = None,
        biased: bool = False,
        soft_cap: float | None = None,
        sinks: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ops: Any = cpu_ops()
        self.rows, num_blocks = scattered_rows([[0] * length for length in lengths], BLOCK_SIZE)
        self.queries = [
            torch.randn(length, heads[0], size, generator=generator) for length in lengths
        ]
        keys, values = torch.randn(2, num_blocks, BLOCK_SIZE, heads[1], size, generator=generator)
        self.cache: LayerKV = filled_cache(self.ops, 3 * keys, values, dtype=dtype)
        bias = torch.randn(heads[0], LONGEST, generator=generator) if biased else None
        self.shape = AttentionShape(
            num_heads=heads[0],
            num_kv_heads=heads[1],
            head_dim=size,
            scale=0.2,
            soft_cap=soft_cap,
            window=window,
            key_bias=bias,
        )
        self.sinks = 6 * torch.randn(heads[0], generator=generator) if sinks else None

    def attend(self, *slices: tuple[int, int, int]) -> list[Tensor]:
        """What the queries of each slice (sequence, first token, end) read, in one step."""
        rows = [Row([], self.rows[number].block_table, start) for number, start, _ in slices]
        counts = [end - start for _, start, end in slices]
        for row, (_, _, end) in zip(rows, slices, strict=True):
            row.token_ids = [0] * end
        _, layout = lay_out(rows, counts, BLOCK_SIZE)
        query = torch.cat([self.queries[number][start:end] for number, start, end in slices])
        plan = self.ops.plan_attention(layout, self.shape, BLOCK_SIZE)
        found = self.ops.paged_attention(query, self.cache, plan, self.sinks)
        return list(found.split(counts))


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    import penstock.kernels.cpu._native as native

    before = native.num_threads()
    native.set_num_threads(request.param)
    yield request.param
    native.set_num_threads(before)


@every_dtype
@every_kind
def test_a_prompt_gives_the_same_bits_however_it_is_cut(
    backend: str, num_threads: int, dtype: str, kind: dict[str, Any]
) -> None:
    prompts = Prompts([LONGEST], dtype, **kind)
    (whole,) = prompts.attend((0, 0, LONGEST))
    for cuts in (range(0, LONGEST + 1, 275), [0, 1, 7, 8, 130, 511, 513, 1024, 1099, LONGEST]):
        parts = [prompts.attend((0, a, b))[0] for a, b in pairwise(cuts)]
        assert torch.equal(torch.cat(parts), whole)
    for token in (0, 1, 15, 16, 44, 63, 64, 127, 128, 500, 511, 512, 700, 1023, 1024, 1099):
        assert torch.equal(prompts.attend((0, token, token + 1))[0][0], whole[token])


@every_dtype
@every_kind
def test_a_sequence_gives_the_same_bits_alone_and_among_others(
    backend: str, num_threads: int, dtype: str, kind: dict[str, Any]
) -> None:
    prompts = Prompts([LONGEST, 3, 600, 17, 1000], dtype, **kind)
    slices = (0, LONGEST - 1, LONGEST), (1, 0, 3), (2, 100, 600), (3, 16, 17), (4, 990, 1000)
    together = prompts.attend(*slices)
    for part, out in zip(slices, together, strict=True):
        assert torch.equal(prompts.attend(part)[0], out)
    assert all(
        torch.equal(one, other)
        for one, other in zip(prompts.attend(*slices[::-1]), together[::-1], strict=True)
    )


@every_dtype
@every_kind
def test_threads_do_not_change_a_bit(backend: str, dtype: str, kind: dict[str, Any]) -> None:
    import penstock.kernels.cpu._native as native

    prompts = Prompts([LONGEST, 1050], dtype, **kind)
    slices = (0, LONGEST - 2, LONGEST), (1, 600, 1050)
    before = native.num_threads()
    found = []
    for count in (1, 2, 5):
        native.set_num_threads(count)
        found.append(torch.cat(prompts.attend(*slices) + prompts.attend(slices[0])))
    native.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@every_dtype
def test_what_is_written_does_not_depend_on_who_else_is(backend: str, dtype: str) -> None:
    ops = cpu_ops()
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(40, 6, 20, generator=generator)
    angles = torch.randn(40, 5, generator=generator)
    rotation = torch.cos(angles), torch.sin(angles)
    slots = torch.randperm(3 * BLOCK_SIZE, generator=generator)[:40]
    zeros = torch.zeros(3, BLOCK_SIZE, 1, 20)
    together, apart = (filled_cache(ops, zeros, zeros, dtype=dtype) for _ in range(2))
    queries = ops.rope_write_kv(heads.clone(), None, rotation, together, slots)
    for row in range(40):
        one = slice(row, row + 1)
        turn = rotation[0][one], rotation[1][one]
        query = ops.rope_write_kv(heads[one].clone(), None, turn, apart, slots[one])
        assert torch.equal(query, queries[one])
    for name, part in together.parts.items():
        assert torch.equal(part, apart.parts[name])


@pytest.mark.parametrize("heads", [(4, 4), (14, 2)])
@pytest.mark.parametrize("window", [None, 1, 5, 40])
def test_no_token_reaches_one_that_does_not_see_it(
    backend: str, heads: tuple[int, int], window: int | None
) -> None:
    """Not even as infinity times nothing."""
    for token in (0, 128, 200, 299):
        prompts = Prompts([300], "float32", heads, 16, window=window)
        (expected,) = prompts.attend((0, 0, 300))
        block, offset = prompts.rows[0].block_table[token // BLOCK_SIZE], token % BLOCK_SIZE
        prompts.cache.parts["keys"][block, 0, :, :, offset] = float("inf")
        prompts.cache.parts["values"][block, 0, :, offset] = float("inf")
        (found,) = prompts.attend((0, 0, 300))
        positions = torch.arange(300)
        sees = (positions >= token) & (positions < token + (window or 300))
        assert torch.equal(found[~sees], expected[~sees])
        assert not found[sees].isfinite().any()


def test_blocks_behind_a_window_may_be_gone(backend: str) -> None:
    prompts = Prompts([LONGEST], "float32", (4, 2), 64, window=100)
    expected = prompts.attend((0, 1000, LONGEST))
    prompts.rows[0].block_table[: (1001 - 100) // BLOCK_SIZE] = [-1] * ((1001 - 100) // BLOCK_SIZE)
    assert torch.equal(prompts.attend((0, 1000, LONGEST))[0], expected[0])


def broken(layout: StepLayout, **changes: Any) -> StepLayout:
    return replace(layout, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block_table": torch.tensor([[0, -1]])}, "block"),
        ({"block_table": torch.tensor([[0]])}, "longer context"),
        ({"context_lens": torch.tensor([1], dtype=torch.int32)}, "more tokens"),
        ({"context_lens": torch.tensor([20])}, "int64"),
        ({"cu_seqlens_q": torch.tensor([3, 0], dtype=torch.int32)}, "fewer"),
        ({"cu_seqlens_q": torch.tensor([0], dtype=torch.int32)}, "cannot be laid out"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(
    backend: str, changes: dict[str, Any], reason: str
) -> None:
    ops = cpu_ops()
    (row,), _ = scattered_rows([[0] * 20], BLOCK_SIZE)
    row.num_computed = 17
    _, layout = lay_out([row], [3], BLOCK_SIZE)
    shape = AttentionShape(num_heads=2, num_kv_heads=1, head_dim=8, scale=1.0)
    ops.plan_attention(layout, shape, BLOCK_SIZE)
    with pytest.raises(ValueError, match=reason):
        ops.plan_attention(broken(layout, **changes), shape, BLOCK_SIZE)


def test_a_plan_never_reads_outside_a_cache(backend: str) -> None:
    prompts = Prompts([40], "float32", (2, 1), 8)
    prompts.rows[0].block_table[2] = 6
    with pytest.raises(ValueError, match="blocks that the cache does not have"):
        prompts.attend((0, 39, 40))


def test_a_bias_must_reach_as_far_as_the_context(backend: str) -> None:
    prompts = Prompts([40], "float32", (2, 1), 8)
    prompts.shape = replace(prompts.shape, key_bias=torch.zeros(2, 39))
    with pytest.raises(ValueError, match="positions with a bias"):
        prompts.attend((0, 39, 40))


@pytest.mark.parametrize(
    "query",
    [
        torch.zeros(1, 2, 8, dtype=torch.bfloat16),
        torch.zeros(1, 8, 2).transpose(1, 2),
        torch.zeros(2, 2, 8),
        torch.zeros(1, 4, 8),
    ],
    ids=["of another type", "not dense", "too many tokens", "too many heads"],
)
def test_queries_that_do_not_fit_are_refused(backend: str, query: Tensor) -> None:
    prompts = Prompts([40], "float32", (2, 1), 8)
    prompts.queries = [torch.zeros(40, 2, 8)]
    row = replace(prompts.rows[0], num_computed=39)
    _, layout = lay_out([row], [1], BLOCK_SIZE)
    plan = prompts.ops.plan_attention(layout, prompts.shape, BLOCK_SIZE)
    with pytest.raises(ValueError):
        prompts.ops.paged_attention(query, prompts.cache, plan)
