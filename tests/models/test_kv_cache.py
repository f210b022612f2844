"""The paged cache's size, and copies between its blocks."""

from pathlib import Path

import torch

from penstock.kernels.kv_cache.reference import write_kv
from penstock.kernels.ops import REFERENCE
from penstock.models.kv_cache import KVCache, block_bytes
from penstock.models.loading import read_config
from tests.models.checkpoints import write_config
from tests.paged_steps import tensors_of

CPU = torch.device("cpu")


def make_cache(directory: Path, num_blocks: int = 5, dtype: str = "float32") -> KVCache:
    spec = read_config(write_config(directory)).spec
    return KVCache(spec, num_blocks, 3, dtype, ops=REFERENCE, device=CPU)


def parts_of(directory: Path, num_blocks: int) -> list[torch.Tensor]:
    """The keys, then the values, of the first layer."""
    first = make_cache(directory, num_blocks).layers[0]
    return [first.keys, first.values]


def test_keys_and_values_of_each_layer_are_blocks_of_slots_of_heads(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert [tuple(tensor.shape) for tensor in tensors_of(cache)] == [(5, 3, 1, 4)] * 4


def test_a_block_costs_what_its_tensors_hold(tmp_path: Path) -> None:
    spec = read_config(write_config(tmp_path)).spec
    cache = make_cache(tmp_path, dtype="bfloat16")
    held = sum(tensor.nbytes for tensor in tensors_of(cache))
    assert block_bytes(spec, 3, "bfloat16", REFERENCE) * 5 == held


def test_a_block_of_integers_costs_a_scale_per_head_more(tmp_path: Path) -> None:
    spec = read_config(write_config(tmp_path)).spec
    heads = 2 * spec.num_layers * 3 * spec.num_kv_heads
    assert block_bytes(spec, 3, "int8", REFERENCE) == heads * (spec.head_dim + 4)


def test_an_unwritten_slot_holds_a_number(tmp_path: Path) -> None:
    assert all(not tensor.any() for tensor in tensors_of(make_cache(tmp_path)))


def test_it_begins_with_a_cache_line(tmp_path: Path) -> None:
    for num_blocks in (1, 7, 100_000):
        assert all(part[0].data_ptr() % 64 == 0 for part in parts_of(tmp_path, num_blocks))


def test_a_copy_reaches_every_layer_and_no_other_block(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    for tensor in tensors_of(cache):
        tensor.normal_()
    before = [tensor.clone() for tensor in tensors_of(cache)]
    cache.copy_blocks(torch.tensor([0, 2]), torch.tensor([3, 4]))
    for old, new in zip(before, tensors_of(cache), strict=True):
        assert torch.equal(new, old[[0, 1, 2, 0, 2]])


def test_every_source_is_read_before_any_block_is_overwritten(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.layers[0].keys[:] = torch.arange(5.0).view(5, 1, 1, 1)
    cache.copy_blocks(torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert cache.layers[0].keys[:, 0, 0, 0].tolist() == [1, 0, 2, 3, 4]


def test_keys_in_eight_bits_of_float_are_copied_too(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, dtype="fp8")
    ones = torch.ones(4, 1, 4)
    write_kv(ones, ones, cache.layers[0], torch.arange(1, 5))
    cache.copy_blocks(torch.tensor([1]), torch.tensor([4]))
    assert cache.layers[0].keys[4].float().flatten(1).amax(1).tolist() == [448.0, 448.0, 0.0]
