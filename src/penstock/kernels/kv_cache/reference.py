"""The paged cache in torch: token after token, head after head."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.kernels.kv_cache.contract import KVShape, Part
from penstock.kernels.quantization import FP8, quantize_rows, quantize_rows_to_fp8


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's keys and values [num_blocks, block_size, K, D] and, in int8 and fp8, their
    scales [num_blocks, block_size, K].
    """

    shape: KVShape
    keys: Tensor
    values: Tensor
    key_scales: Tensor | None
    value_scales: Tensor | None


def kv_parts(shape: KVShape) -> dict[str, Part]:
    """The tensors that `layer_kv` wants, by name; the cache gives each a leading axis of blocks."""
    heads = Part((shape.block_size, shape.num_kv_heads, shape.head_dim), shape.element)
    parts = {"keys": heads, "values": heads}
    if shape.is_scaled:
        scales = Part(heads.shape[:2], torch.float32)
        parts |= {"key_scales": scales, "value_scales": scales}
    return parts


def layer_kv(shape: KVShape, parts: Mapping[str, Tensor]) -> LayerKV:
    """Make what the other ops take for a layer's cache of tensors as `kv_parts` asks for."""
    return LayerKV(
        shape,
        parts["keys"],
        parts["values"],
        parts.get("key_scales"),
        parts.get("value_scales"),
    )


def write_kv(key: Tensor, value: Tensor, cache: LayerKV, slot_mapping: Tensor) -> None:
    """Put key and value [T, K, D] into their slots of the cache.

    slot_mapping [T] int64 names a slot, block * block_size + offset, for every token; no two are
    equal.
    """
    pairs = (key, cache.keys, cache.key_scales), (value, cache.values, cache.value_scales)
    for heads, kept, scales in pairs:
        if scales is not None:
            heads, scale, _ = (
                quantize_rows_to_fp8(heads) if kept.dtype == FP8 else quantize_rows(heads)
            )
            scales.flatten(0, 1).index_copy_(0, slot_mapping, scale)
        heads = heads.to(kept.dtype)
        if kept.dtype == FP8:  # torch moves its bytes, but not its numbers
            kept, heads = kept.view(torch.uint8), heads.view(torch.uint8)
        kept.flatten(0, 1).index_copy_(0, slot_mapping, heads)


def read_kv(kept: Tensor, scales: Tensor | None, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows [N, D] of keys or values seen as [num_blocks * block_size * K, D], as floats."""
    heads = kept.view(-1, kept.shape[-1]).index_select(0, rows)
    if scales is None:
        return heads.to(dtype)
    return (heads.float() * scales.view(-1, 1).index_select(0, rows)).to(dtype)
