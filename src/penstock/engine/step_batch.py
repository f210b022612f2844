"""A plan laid out flat: what the decoder needs of a step, as tensors."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from penstock.engine.transfers import Transfers
from penstock.kernels.step_layout import StepLayout
from penstock.scheduling.sequence import Plan, Sequence, Slice

Ints = npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """The tokens that the latest step drew, int64 [R] on the device, and whose each of them is."""

    token_ids: Tensor
    rows: dict[Sequence, int]


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
    def lay_out(
        cls, plan: Plan, block_size: int, transfers: Transfers, drawn: Drawn | None = None
    ) -> "StepBatch":
        """Lay a plan out. A token in flight is taken from those drawn, on the device."""
        slices = plan.slices
        query_lens = np.array([part.count for part in slices], dtype=np.int64)
        starts = np.array([part.start for part in slices], dtype=np.int64)
        cu_seqlens = np.concatenate(([0], np.cumsum(query_lens)))
        owner = np.repeat(np.arange(len(slices)), query_lens)
        positions = np.arange(cu_seqlens[-1]) - (cu_seqlens[:-1] - starts)[owner]
        context_lens = starts + query_lens
        block_table = _block_table(plan, -(-context_lens // block_size))
        slots = block_table[owner, positions // block_size] * block_size + positions % block_size
        logits_at, reads = _logits_rows(plan, cu_seqlens)
        token_ids, at, sources = _token_ids(slices, drawn)
        tensors = transfers.to_device(
            [
                *(positions, slots, block_table, cu_seqlens.astype(np.int32)),
                *(context_lens.astype(np.int32), logits_at, token_ids, at, sources),
            ]
        )
        if drawn is not None and len(at):
            tensors[6].index_copy_(0, tensors[7], drawn.token_ids[tensors[8]])
        return cls(
            token_ids=tensors[6],
            layout=StepLayout(
                positions=tensors[0],
                slot_mapping=tensors[1],
                block_table=tensors[2],
                cu_seqlens_q=tensors[3],
                context_lens=tensors[4],
                query_lens_host=query_lens.tolist(),
                context_lens_host=context_lens.tolist(),
            ),
            logits_at=tensors[5],
            emitting=[part.sequence for part in slices if part.emits],
            prompt_reads=reads,
        )


def _token_ids(slices: list[Slice], drawn: Drawn | None) -> tuple[Ints, Ints, Ints]:
    """The slices' tokens, 0 for one in flight; where these are, and their rows among the drawn."""
    token_ids: list[int] = []
    at, sources = [], []
    for part in slices:
        token_ids += part.sequence.token_ids[part.start : part.end]
        if part.end > len(part.sequence.token_ids):
            assert drawn is not None and part.end == len(part.sequence.token_ids) + 1
            at.append(len(token_ids))
            sources.append(drawn.rows[part.sequence])
            token_ids.append(0)
    ids, places, rows = (np.array(each, dtype=np.int64) for each in (token_ids, at, sources))
    return ids, places, rows


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
