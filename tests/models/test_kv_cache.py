"""The paged cache's size, and copies between its blocks."""

from pathlib import Path

import torch

from penstock.models.kv_cache import KVCache
from penstock.models.loading import read_config
from tests.models.checkpoints import write_config

CPU = torch.device("cpu")


def make_cache(directory: Path, num_blocks: int = 5) -> KVCache:
    spec = read_config(write_config(directory)).spec
    return KVCache(spec, num_blocks, 3, torch.float32, CPU)


def test_keys_and_values_of_each_layer_are_blocks_of_slots_of_heads(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    assert [tuple(keys.shape) for keys in cache.keys] == [(5, 3, 1, 4)] * 2
    assert [tuple(values.shape) for values in cache.values] == [(5, 3, 1, 4)] * 2


def test_a_block_costs_what_its_tensors_hold(tmp_path: Path) -> None:
    spec = read_config(write_config(tmp_path)).spec
    cache = KVCache(spec, 5, 3, torch.bfloat16, CPU)
    held = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    assert KVCache.block_bytes(spec, 3, torch.bfloat16) * 5 == held


def test_an_unwritten_slot_holds_a_number(tmp_path: Path) -> None:
    assert all(not keys.any() for keys in make_cache(tmp_path).keys)


def test_a_copy_reaches_every_layer_and_no_other_block(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    for tensor in (*cache.keys, *cache.values):
        tensor.normal_()
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    cache.copy_blocks([(0, 3), (2, 4)])
    for old, new in zip(before, (*cache.keys, *cache.values), strict=True):
        assert torch.equal(new, old[[0, 1, 2, 0, 2]])


def test_every_source_is_read_before_any_block_is_overwritten(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.keys[0][:] = torch.arange(5.0).view(5, 1, 1, 1)
    cache.copy_blocks([(0, 1), (1, 0)])
    assert cache.keys[0][:, 0, 0, 0].tolist() == [1, 0, 2, 3, 4]


def test_no_copies_are_no_work(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.copy_blocks([])
    assert not cache.keys[0].any()
