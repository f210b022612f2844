"""FlashInfer's BatchPrefillWithPagedKVCacheWrapper as its documentation has it (0.7.2), in torch:
attention computed from what is handed to `plan` and `run`, and nothing else.
"""

from typing import Any

import torch
from torch import Tensor


class Wrapper:
    """`plan` is handed what the host knows on the host, and the pages' numbers on the device."""

    def __init__(self, workspace: Tensor, kv_layout: str) -> None:
        assert workspace.dtype == torch.uint8 and kv_layout == "HND"
        self.num_plans = 0

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        logits_soft_cap: float | None = None,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
    ) -> None:
        for each in (qo_indptr, paged_kv_indptr, paged_kv_last_page_len):
            assert each.dtype == torch.int32 and each.device.type == "cpu"
        assert paged_kv_indices.dtype == torch.int32
        assert len(paged_kv_indices) == paged_kv_indptr[-1]
        assert sm_scale is not None and causal and q_data_type == kv_data_type
        lens = page_size * (paged_kv_indptr.diff() - 1) + paged_kv_last_page_len
        self.sequences = list(
            zip(
                torch.arange(int(qo_indptr[-1])).split(qo_indptr.diff().tolist()),
                paged_kv_indices.split(paged_kv_indptr.diff().tolist()),
                lens.tolist(),
                strict=True,
            )
        )
        self.heads = num_qo_heads, num_kv_heads, head_dim_qk
        self.page_size, self.scale, self.window_left = page_size, sm_scale, window_left
        self.soft_cap = logits_soft_cap or 0.0
        self.dtype = q_data_type
        self.num_plans += 1

    def run(self, q: Tensor, paged_kv_cache: Tensor, *, out: Tensor) -> Tensor:
        _, num_kv_heads, size = self.heads
        assert paged_kv_cache.shape[1:] == (2, num_kv_heads, self.page_size, size)
        assert q.dtype == paged_kv_cache.dtype == out.dtype == self.dtype and out.shape == q.shape
        for rows, pages, length in self.sequences:
            kept = paged_kv_cache[pages.long()].double()  # pages, 2, heads, page, size
            key, value = kept.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :length]
            query = q[rows].double().unflatten(1, (num_kv_heads, -1))
            scores = torch.einsum("tkgd,knd->kgtn", query, key) * self.scale
            if self.soft_cap > 0:
                scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
            scores = scores.masked_fill(~self._seen(len(rows), length), float("-inf"))
            found = torch.einsum("kgtn,knd->tkgd", scores.softmax(-1), value)
            out[rows] = found.flatten(1, 2).to(out.dtype)
        return out

    def _seen(self, num_queries: int, length: int) -> Tensor:
        """The queries are a sequence's last ones; the window's left end is inclusive."""
        at = torch.arange(length - num_queries, length)[:, None]
        key = torch.arange(length)[None, :]
        seen = key <= at
        return seen if self.window_left < 0 else seen & (key >= at - self.window_left)


class Module:
    """What `import flashinfer` finds, where a test puts it."""

    BatchPrefillWithPagedKVCacheWrapper: Any = Wrapper
