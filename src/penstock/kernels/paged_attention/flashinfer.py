"""Attention by FlashInfer (https://arxiv.org/abs/2501.01005), for steps with slices of more than
one token.

It reads the cache where the kernels in Triton keep it: what FlashInfer calls HND is their layout.
Steps of single tokens stay with those kernels, because they are recorded as graphs, and what
FlashInfer plans on the host for one step cannot be replayed for another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from penstock.kernels.kv_cache.triton import LayerKV
from penstock.kernels.paged_attention import triton
from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout

WORKSPACE_BYTES = 128 * 2**20
"""What FlashInfer recommends."""
NUM_TURNS = 3
"""Wrappers that take turns. What one has planned leaves its pinned memory only when the device
comes to it, by when the next step, and no other, may have been planned.
"""


@dataclass(frozen=True, slots=True)
class Planned:
    """A step that FlashInfer has planned."""

    wrapper: Any
    num_tokens: int


class FlashInfer:
    """The two operations of attention. `make_wrapper` is FlashInfer's
    BatchPrefillWithPagedKVCacheWrapper; queries, keys and values are of `dtype`.
    """

    def __init__(self, make_wrapper: Callable[[Tensor, str], Any], dtype: torch.dtype) -> None:
        self._make_wrapper = make_wrapper
        self._dtype = dtype
        self._turns: dict[AttentionShape, _Turns] = {}
        self._workspace: Tensor | None = None

    def plan_attention(
        self, layout: StepLayout, shape: AttentionShape, block_size: int
    ) -> triton.AttentionPlan | Planned:
        """Work out a step. Nothing waits: what FlashInfer wants to know on the host is known there.
        Raises ValueError for a bias on keys.
        """
        if max(layout.query_lens_host, default=0) <= 1:
            return triton.plan_attention(layout, shape, block_size)
        if shape.key_bias is not None:
            raise ValueError("FlashInfer adds no bias to keys.")
        lens = layout.context_lens_host
        num_pages = [-(-length // block_size) for length in lens]
        wrapper = self._next(shape, layout.positions.device)
        wrapper.plan(
            _on_host([0, *accumulate(layout.query_lens_host)]),
            _on_host([0, *accumulate(num_pages)]),
            pages(layout, block_size, sum(num_pages)),
            _on_host([(length - 1) % block_size + 1 for length in lens]),
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            block_size,
            causal=True,
            sm_scale=shape.scale,
            logits_soft_cap=shape.soft_cap or 0.0,
            window_left=-1 if shape.window is None else shape.window - 1,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
        )
        self._turns[shape].sent(layout.positions.device)
        return Planned(wrapper, sum(layout.query_lens_host))

    def paged_attention(
        self,
        query: Tensor,
        cache: LayerKV,
        plan: triton.AttentionPlan | Planned,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Attention of query [T, H, D]: [T, H, D], in its dtype. Raises ValueError for sinks."""
        if sinks is not None:
            raise ValueError("FlashInfer knows no sinks; the kernels in Triton do.")
        if isinstance(plan, triton.AttentionPlan):
            return triton.paged_attention(query, cache, plan)
        heads, size, dtype = cache.shape.num_kv_heads, cache.shape.head_dim, self._dtype
        if len(query) != plan.num_tokens or query.dtype != dtype or cache.heads.dtype != dtype:
            raise ValueError(
                f"{len(query)} queries of {query.dtype} over {cache.heads.dtype} do not fit a step "
                f"of {plan.num_tokens} in {dtype}."
            )
        kept = cache.heads.view(-1, 2, heads, cache.shape.block_size, size)
        out: Tensor = plan.wrapper.run(query.contiguous(), kept, out=torch.empty_like(query))
        return out

    def _next(self, shape: AttentionShape, device: torch.device) -> Any:
        """The wrapper whose turn it is: every shape has its own, since a step needs all of them."""
        if self._workspace is None:
            self._workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        if shape not in self._turns:
            wrappers = [self._make_wrapper(self._workspace, "HND") for _ in range(NUM_TURNS)]
            self._turns[shape] = _Turns(wrappers)
        return self._turns[shape].next()


class _Turns:
    """Wrappers of one shape, and when the device has read what each had planned last."""

    def __init__(self, wrappers: list[Any]) -> None:
        self._wrappers = wrappers
        self._events: list[torch.cuda.Event | None] = [None] * len(wrappers)
        self._turn = 0

    def next(self) -> Any:
        """A wrapper that may plan anew. Waits only if the one whose turn it is was never read."""
        self._turn = (self._turn + 1) % len(self._wrappers)
        event = self._events[self._turn]
        if event is not None:
            event.synchronize()
        return self._wrappers[self._turn]

    def sent(self, device: torch.device) -> None:
        """Its plan is on its way to the device."""
        if device.type == "cuda":
            self._events[self._turn] = torch.cuda.current_stream(device).record_event()


def pages(layout: StepLayout, block_size: int, count: int) -> Tensor:
    """The blocks of every sequence up to its last token, `count` in all, one sequence after the
    other: int32. That is the block table without what pads its rows, and no host reads it.
    """
    per_sequence = (layout.context_lens.long() + block_size - 1) // block_size
    sequence = torch.repeat_interleave(per_sequence, output_size=count)
    first = per_sequence.cumsum(0) - per_sequence
    place = torch.arange(count, device=first.device) - first[sequence]
    return layout.block_table[sequence, place].int()


def _on_host(values: list[int]) -> Tensor:
    """Where FlashInfer plans; pinned where there is a GPU, so that sending it waits for nothing."""
    return torch.tensor(values, dtype=torch.int32, pin_memory=torch.cuda.is_available())
