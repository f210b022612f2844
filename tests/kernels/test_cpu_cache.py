"""The CPU's cache holds what the reference's does, and lets nothing be written outside of it."""

from typing import Any

import pytest
import torch

from penstock.kernels.kv_cache.contract import CPU_KV_DTYPES, KVShape
from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import REFERENCE
from tests.kernels.attention_cases import MIXED, attend, attend_formula, case
from tests.kernels.instruction_sets import ISAS, cpu_ops
from tests.kernels.paged_cache import BLOCK_SIZE, empty_cache, filled_cache

pytestmark = [
    pytest.mark.skipif(not ISAS, reason="no kernels were built for this processor"),
    pytest.mark.parametrize("backend", ISAS),
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("block_size", [16, 48])
@pytest.mark.parametrize("dtype", CPU_KV_DTYPES)
def test_elements_are_rounded_as_the_reference_rounds_them(
    backend: str, dtype: str, block_size: int
) -> None:
    keys, values = torch.randn(2, 3, block_size, 2, 20, generator=seeded()) * 100
    keys[0, 0] = 0
    values[1, 2, 1, :3] = torch.tensor([float("inf"), 1e-41, -0.0])
    if dtype == "int8":
        values[1, 2, 1] = 1e-42
        values[1, 3, 1] = torch.arange(20) - 127.0
    ours, theirs = (filled_cache(ops, keys, values, dtype=dtype) for ops in (cpu_ops(), REFERENCE))

    def in_order(part: Any, last: int) -> Any:
        """[blocks, tiles, K, 16, ...] as [blocks, block_size, K, ...]."""
        return part.movedim(last, 2).flatten(1, 2)

    assert torch.equal(in_order(ours.parts["keys"], 4), theirs.keys)
    reference_values = theirs.values.clone()
    if dtype == "int8":
        reference_values[1, 2, 1] = 0
        assert torch.equal(in_order(ours.parts["key_scales"], 3), theirs.key_scales)
        scales = in_order(ours.parts["value_scales"], 3)
        assert scales[1, 2, 1] == 0
        theirs.value_scales[1, 2, 1] = 0
        assert torch.equal(scales, theirs.value_scales)
    assert torch.equal(in_order(ours.parts["values"], 3), reference_values)


def test_not_a_number_stays_one(backend: str) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        keys = torch.full((1, 16, 1, 8), float("nan"))
        parts = filled_cache(cpu_ops(), keys, keys, dtype=dtype).parts
        assert all(part.isnan().all() for part in parts.values())


@pytest.mark.parametrize("size", [1, 4, 12, 16, 40, 96, 256])
@pytest.mark.parametrize("dtype", CPU_KV_DTYPES)
def test_heads_of_any_size_are_read(backend: str, size: int, dtype: str) -> None:
    values = case(*MIXED, (40, 200), size=size, heads=(6, 2))(seeded())
    actual = attend(cpu_ops(), *values, dtype=dtype)
    expected = attend(REFERENCE, *values, dtype=dtype)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("block_size", [32, 48])
def test_blocks_may_be_several_tiles(backend: str, block_size: int) -> None:
    values = case(*MIXED, (40, 200), block_size=block_size)(seeded())
    actual = attend(cpu_ops(), *values)
    torch.testing.assert_close(actual.double(), attend_formula(*values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block_size", [0, 1, 8, 20])
def test_blocks_of_other_sizes_are_refused(backend: str, block_size: int) -> None:
    shape = KVShape(num_kv_heads=1, head_dim=8, block_size=block_size, dtype="float32")
    with pytest.raises(ValueError, match="multiple"):
        cpu_ops().kv_parts(shape)


@pytest.mark.parametrize("change", ["dtype", "shape", "stride"])
def test_parts_that_are_not_as_asked_for_are_refused(backend: str, change: str) -> None:
    ops = cpu_ops()
    shape = KVShape(num_kv_heads=2, head_dim=16, block_size=16, dtype="float32")
    parts = {
        name: torch.zeros(3, *part.shape, dtype=part.dtype)
        for name, part in ops.kv_parts(shape).items()
    }
    ops.layer_kv(shape, parts)
    keys = parts["keys"]
    wrong = {"dtype": keys.double(), "shape": keys[:, :, :1], "stride": keys.transpose(3, 4)}
    with pytest.raises(ValueError, match="keys"):
        ops.layer_kv(shape, parts | {"keys": wrong[change]})


@pytest.mark.parametrize("slot", [-1, -(2**62), 3 * BLOCK_SIZE, 2**62])
def test_a_slot_outside_the_cache_is_refused_and_nothing_is_written_there(
    backend: str, slot: int
) -> None:
    ops = cpu_ops()
    cache = empty_cache(ops, 3, 1, 8)
    with pytest.raises(IndexError, match=f"slot {slot} is outside"):
        ops.rope_write_kv(torch.ones(1, 3, 8), None, None, cache, torch.tensor([slot]))
    assert not any(part.any() for part in cache.parts.values())


ANGLES = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("heads", "norm", "rotation", "slots"),
    [
        (torch.zeros(2, 4, 16), None, None, torch.arange(2)),
        (torch.zeros(2, 2, 8), None, None, torch.arange(2)),
        (torch.zeros(2, 4, 8), None, None, torch.arange(3)),
        (torch.zeros(2, 4, 8), None, None, torch.arange(2, dtype=torch.int32)),
        (torch.zeros(2, 4, 8).bfloat16(), None, None, torch.arange(2)),
        (torch.zeros(2, 8, 4).transpose(1, 2), None, None, torch.arange(2)),
        (torch.zeros(2, 4, 8), Norm("rms", torch.ones(4, 8), None, 1e-5), None, torch.arange(2)),
        (torch.zeros(2, 4, 8), None, (ANGLES, ANGLES[:1]), torch.arange(2)),
        (torch.zeros(2, 4, 8), None, (torch.zeros(2, 5),) * 2, torch.arange(2)),
        (torch.zeros(2, 4, 8), None, (ANGLES.double(),) * 2, torch.arange(2)),
    ],
)
def test_heads_that_do_not_fit_the_cache_are_refused(
    backend: str, heads: Any, norm: Any, rotation: Any, slots: Any
) -> None:
    ops = cpu_ops()
    with pytest.raises(ValueError):
        ops.rope_write_kv(heads, norm, rotation, empty_cache(ops, 3, 1, 8), slots)


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm_and_rotation_are_the_references(backend: str, kind: Any) -> None:
    generator = seeded()
    for size, turned in ((64, 64), (80, 32), (20, 10)):
        heads = torch.randn(33, 8, size, generator=generator)
        weight, bias = torch.randn(2, 6, size, generator=generator)
        norm = Norm(kind, weight, bias if kind == "layer" else None, 1e-5)
        angles = torch.randn(33, turned // 2, generator=generator)
        rotation = torch.cos(angles), torch.sin(angles)
        slots = torch.randperm(48, generator=generator)[:33]
        queries = [
            ops.rope_write_kv(
                heads.clone(), norm, rotation, empty_cache(ops, 3, 2, size), slots
            ).clone()
            for ops in (cpu_ops(), REFERENCE)
        ]
        torch.testing.assert_close(*queries, atol=1e-5, rtol=1e-5)
