"""Attention over a paged cache (https://arxiv.org/abs/2309.06180) in torch: gather, then one fused
product.
"""

import torch
from torch import Tensor
from torch.nn import functional

from penstock.kernels.kv_cache.reference import LayerKV, read_kv
from penstock.kernels.paged_attention.contract import check_sinks
from penstock.kernels.paged_attention.plan import AttentionPlan, Part


def paged_attention(
    query: Tensor, cache: LayerKV, plan: AttentionPlan, sinks: Tensor | None = None
) -> Tensor:
    """Let each query [T, H, D] read the keys and values of its sequence: [T, H, D], softmax in
    float32.

    The cache holds this step's keys and values already. plan comes from the same backend's
    `plan_attention`. sinks [H] float32 are scores of no key, which a layer has learned: a head's
    takes part in the softmax of all its queries, as it is, and has no value. Keys then share less
    than one (https://arxiv.org/abs/2508.10925, after https://arxiv.org/abs/2309.17453).
    """
    check_sinks(sinks, plan.shape)
    out = query.new_empty(query.shape)
    for part in plan.parts:
        out[part.rows] = _attend(query[part.rows], cache, part, plan, sinks)
    return out


def _attend(
    query: Tensor, cache: LayerKV, part: Part, plan: AttentionPlan, sinks: Tensor | None
) -> Tensor:
    """Fold the query heads that share a key-value head into its rows, so that keys are never
    repeated.
    """
    num_rows, num_heads, size = query.shape
    shape = plan.shape
    folded = (part.num_pieces, shape.num_kv_heads, -1, size)
    split = (part.num_pieces, -1, shape.num_kv_heads, num_heads // shape.num_kv_heads, size)
    queries = query.reshape(split).permute(0, 2, 3, 1, 4).reshape(folded)
    keys = read_kv(cache.keys, cache.key_scales, part.gather, query.dtype).view(folded)
    values = read_kv(cache.values, cache.value_scales, part.gather, query.dtype).view(folded)
    if shape.soft_cap is None and sinks is None:
        out = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=part.mask, scale=shape.scale
        )
    else:
        weights = _weights(queries, keys, part, plan, sinks)
        out = (weights @ values.float()).to(query.dtype)
    out = out.view(part.num_pieces, shape.num_kv_heads, split[3], -1, size)
    return out.permute(0, 3, 1, 2, 4).reshape(num_rows, num_heads, size)


def _weights(
    queries: Tensor, keys: Tensor, part: Part, plan: AttentionPlan, sinks: Tensor | None
) -> Tensor:
    """What keys count for, [P, K, G * n, C], where torch's fused product knows no way: of scores
    that are capped, or that sinks stand beside.
    """
    scores = queries.float() @ keys.float().transpose(-1, -2) * plan.shape.scale
    if plan.shape.soft_cap is not None:
        scores = plan.shape.soft_cap * torch.tanh(scores / plan.shape.soft_cap)
    if part.mask is not None:
        scores = scores + part.mask
    if sinks is None:
        return scores.softmax(-1)
    num_pieces, num_kv_heads, num_rows, _ = scores.shape
    per_head = num_rows * num_kv_heads // len(sinks)
    rows = sinks.view(num_kv_heads, -1).repeat_interleave(per_head, dim=1)
    column = rows[None, :, :, None].expand(num_pieces, -1, -1, -1)
    return torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
