"""A plan laid out flat: what the decoder needs of a step, as tensors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penstock.kernels.step_layout import StepLayout
from penstock.scheduling.sequence import Plan, Sequence

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """T tokens of S slices. Logits are needed at `logits_at` only: int64 [L] rows of the hidden
    states.

    The first `len(emitting)` of them belong to the slices that draw a token, in the order of the
    plan; after them, for every (slice number, count) of `prompt_reads`, come the rows of that slice
    which predict tokens of its own prompt.
    """

    token_ids: Tensor
    layout: StepLayout
    logits_at: Tensor
    emitting: list[Sequence]
    prompt_reads: list[tuple[int, int]]

    @classmethod
    def lay_out(cls, plan: Plan, block_size: int, device: torch.device) -> "StepBatch":
        slices = plan.slices
        query_lens = np.array([part.count for part in slices], dtype=np.int64)
        starts = np.array([part.start for part in slices], dtype=np.int64)
        cu_seqlens = np.concatenate(([0], np.cumsum(query_lens)))
        owner = np.repeat(np.arange(len(slices)), query_lens)
        positions = np.arange(cu_seqlens[-1]) - (cu_seqlens[:-1] - starts)[owner]
        context_lens = starts + query_lens
        block_table = _block_table(plan, -(-context_lens // block_size))
        slots = block_table[owner, positions // block_size] * block_size + positions % block_size
        token_ids: list[int] = []
        for part in slices:
            token_ids += part.sequence.token_ids[part.start : part.start + part.count]
        logits_at, reads = _logits_rows(plan, cu_seqlens)
        layout = StepLayout(
            positions=_to(positions, device),
            slot_mapping=_to(slots, device),
            block_table=_to(block_table, device),
            cu_seqlens_q=_to(cu_seqlens.astype(np.int32), device),
            context_lens=_to(context_lens.astype(np.int32), device),
            query_lens_host=query_lens.tolist(),
            context_lens_host=context_lens.tolist(),
        )
        return cls(
            token_ids=_to(np.array(token_ids, dtype=np.int64), device),
            layout=layout,
            logits_at=_to(logits_at, device),
            emitting=[part.sequence for part in slices if part.emits],
            prompt_reads=reads,
        )


def _block_table(plan: Plan, num_blocks: Ints) -> Ints:
    """Every slice's blocks up to its last token, rows padded with block 0: [S, B]."""
    table = np.zeros((len(plan.slices), int(num_blocks.max())), dtype=np.int64)
    for row, (part, count) in enumerate(zip(plan.slices, num_blocks.tolist(), strict=True)):
        table[row, :count] = part.sequence.block_table[:count]
    return table


def _logits_rows(plan: Plan, cu_seqlens: Ints) -> tuple[Ints, list[tuple[int, int]]]:
    last = cu_seqlens[1:] - 1
    rows = [last[[number for number, part in enumerate(plan.slices) if part.emits]]]
    reads = []
    for number, part in enumerate(plan.slices):
        if part.sequence.reads_prompt and not part.sequence.request.embeds:
            count = min(part.count, part.sequence.prompt_len - 1 - part.start)
            if count > 0:
                rows.append(cu_seqlens[number] + np.arange(count))
                reads.append((number, count))
    return np.concatenate(rows), reads


def _to(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)
