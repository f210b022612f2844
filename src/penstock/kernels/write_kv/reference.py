"""Writing this step's keys and values into the paged cache, in torch."""

from torch import Tensor


def write_kv(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
) -> tuple[Tensor, Tensor]:
    """Put key and value [T, K, D] into the caches [num_blocks, block_size, K, D] in place, and
    return the caches.

    slot_mapping [T] int64 names a slot, block * block_size + offset, for every token; no two are
    equal.
    """
    key_cache.flatten(0, 1).index_copy_(0, slot_mapping, key)
    value_cache.flatten(0, 1).index_copy_(0, slot_mapping, value)
    return key_cache, value_cache
