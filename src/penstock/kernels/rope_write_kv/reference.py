"""Head norms, rotary position embedding (https://arxiv.org/abs/2104.09864) and the write into the
cache, in torch.
"""

from torch import Tensor

from penstock.kernels.kv_cache.reference import LayerKV, write_kv
from penstock.kernels.norm.contract import Norm
from penstock.kernels.norm.reference import norm

Rotation = tuple[Tensor, Tensor]


def rope_write_kv(
    heads: Tensor,
    head_norm: Norm | None,
    rotation: Rotation | None,
    cache: LayerKV,
    slot_mapping: Tensor,
) -> Tensor:
    """From heads [T, H + 2 * K, D], queries first, then keys, then values, all of a step's tokens:
    the queries [T, H, D], ready for attention, once keys and values are in the cache.

    Queries and keys are normalised where there is a norm of H + K heads, then turned where there is
    a rotation. heads may be overwritten. slot_mapping [T] int64 names each token's slot in the
    cache, block * block_size + offset; no two are equal.
    """
    num_kv_heads = cache.shape.num_kv_heads
    turned, value = heads[:, :-num_kv_heads], heads[:, -num_kv_heads:]
    if head_norm is not None:
        turned = norm(turned, head_norm)
    if rotation is not None:
        turned = rope(turned, rotation)
    write_kv(turned[:, -num_kv_heads:], value, cache, slot_mapping)
    return turned[:, :-num_kv_heads]


def rope(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate heads [T, N, D] in place, and return them; float32 inside.

    rotation is cos and sin, [T, R / 2] float32 each with R <= D: element i < R / 2 of a head is
    paired with element i + R / 2, as in GPT-NeoX, and elements from R on stay as they are.
    """
    cos, sin = (part.unsqueeze(1) for part in rotation)
    size = cos.shape[-1]
    first, second = heads[..., :size].float(), heads[..., size : 2 * size].float()
    turned = first * cos - second * sin, second * cos + first * sin
    heads[..., :size], heads[..., size : 2 * size] = turned
    return heads
