"""Attention over a paged cache (https://arxiv.org/abs/2309.06180) in torch: gather, then one fused
product.
"""

from torch import Tensor
from torch.nn import functional

from penstock.kernels.kv_cache.reference import LayerKV, read_kv
from penstock.kernels.paged_attention.plan import AttentionPlan, Part


def paged_attention(query: Tensor, cache: LayerKV, plan: AttentionPlan) -> Tensor:
    """Let each query [T, H, D] read the keys and values of its sequence: [T, H, D], softmax in
    float32.

    The cache holds this step's keys and values already. plan comes from the same backend's
    `plan_attention`.
    """
    out = query.new_empty(query.shape)
    for part in plan.parts:
        out[part.rows] = _attend(query[part.rows], cache, part, plan)
    return out


def _attend(query: Tensor, cache: LayerKV, part: Part, plan: AttentionPlan) -> Tensor:
    """Fold the query heads that share a key-value head into its rows, so that keys are never
    repeated.
    """
    num_rows, num_heads, size = query.shape
    num_kv_heads = plan.shape.num_kv_heads
    folded = (part.num_pieces, num_kv_heads, -1, size)
    split = (part.num_pieces, -1, num_kv_heads, num_heads // num_kv_heads, size)
    out = functional.scaled_dot_product_attention(
        query.reshape(split).permute(0, 2, 3, 1, 4).reshape(folded),
        read_kv(cache.keys, cache.key_scales, part.gather, query.dtype).view(folded),
        read_kv(cache.values, cache.value_scales, part.gather, query.dtype).view(folded),
        attn_mask=part.mask,
        scale=plan.shape.scale,
    )
    out = out.view(part.num_pieces, num_kv_heads, split[3], -1, size)
    return out.permute(0, 3, 1, 2, 4).reshape(num_rows, num_heads, size)
