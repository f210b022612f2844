"""The paged cache as a GPU's kernels like it: within a block, head after head, so that what one
program of attention reads of a block lies in one piece; first the keys, then the values.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.kv_cache.contract import KV_DTYPES, KVShape, Part
from penstock.kernels.quantization import FP8_MAX, INT8_MAX

_LARGEST = {"int8": INT8_MAX, "fp8": FP8_MAX}
_SMALLEST_NORMAL = tl.constexpr(1.17549435e-38)
_HALVES_AWAY = tl.constexpr(12582912.0)


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's keys and values: heads [num_blocks, 2 * K, block_size, D], and, in int8 and fp8,
    their scales [num_blocks, 2 * K, block_size].
    """

    shape: KVShape
    heads: Tensor
    scales: Tensor | None

    @property
    def num_slots(self) -> int:
        return self.heads.shape[0] * self.shape.block_size

    @property
    def largest(self) -> float | None:
        """What the largest magnitude of a head becomes; None where heads are kept as they are."""
        return _LARGEST.get(self.shape.dtype)


def kv_parts(shape: KVShape) -> dict[str, Part]:
    """The tensors that `layer_kv` wants. Raises ValueError for a type not among `KV_DTYPES`."""
    if shape.dtype not in KV_DTYPES:
        raise ValueError(f"No cache of {shape.dtype}; there are {', '.join(KV_DTYPES)}.")
    heads = Part((2 * shape.num_kv_heads, shape.block_size, shape.head_dim), shape.element)
    if not shape.is_scaled:
        return {"heads": heads}
    return {"heads": heads, "scales": Part(heads.shape[:2], torch.float32)}


def layer_kv(shape: KVShape, parts: Mapping[str, Tensor]) -> LayerKV:
    """A layer's cache. Raises ValueError for tensors that are not as `kv_parts` asks."""
    num_blocks = len(parts["heads"])
    for name, part in kv_parts(shape).items():
        found, wanted = parts[name], (num_blocks, *part.shape)
        if found.shape != wanted or found.dtype != part.dtype or not found.is_contiguous():
            raise ValueError(
                f"The cache's {name} are {list(found.shape)} {found.dtype} of strides "
                f"{found.stride()}; kernels take dense {list(wanted)} {part.dtype}."
            )
    return LayerKV(shape, parts["heads"], parts.get("scales"))


@triton.jit
def round_half_even(x):
    """The nearest integer, halves to the even one, of numbers far below 2**22: where floats have no
    room for a fraction, addition rounds it away.
    """
    return (x + _HALVES_AWAY) - _HALVES_AWAY


@triton.jit
def rounded(x, LARGEST: tl.constexpr, TO_INTEGERS: tl.constexpr):
    """Rows x [N, D] float32 and what they are multiplied by to be rounded to 8 bits: the rounded
    values, still as float32, and the scales [N], as `kernels/quantization.py` has it.
    """
    scale = tl.max(tl.abs(x), axis=1) / LARGEST
    scale = tl.where(scale < _SMALLEST_NORMAL, 0.0, scale)
    inverse = tl.where(scale == 0, 0.0, 1.0 / tl.where(scale == 0, 1.0, scale))
    values = tl.minimum(tl.maximum(x * inverse[:, None], -LARGEST), LARGEST)
    if TO_INTEGERS:
        values = round_half_even(values)
    is_no_number = tl.max((x != x).to(tl.int32), axis=1) > 0
    return values, tl.where(is_no_number, float("nan"), scale)
