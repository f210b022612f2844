"""Steps of single tokens, recorded once for each batch size and replayed: hundreds of kernels then
start at one word, on a GPU (https://developer.nvidia.com/blog/cuda-graphs/) as on a CPU.

What is recorded reads its inputs from places that never move. A step with fewer sequences than a
graph has rows fills it up with sequences of one token in a spare block, and nobody looks at their
logits. A size is recorded when it is used the second time; the first one compiles its kernels.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penstock.engine.step_batch import StepBatch
from penstock.kernels.recording import Compute, NotRecorded, Record
from penstock.kernels.step_layout import StepLayout
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache

log = logging.getLogger("penstock.engine")


class Graphs:
    """The recorded steps of one decoder and cache, for the batch sizes that `sizes` lists upwards.

    `spare_block` is a block of the cache that is nobody's; 0 will do if no size is left out.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        record: Record,
        *,
        sizes: Sequence[int],
        max_model_len: int,
        spare_block: int = 0,
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._record = record
        self._spare_block = spare_block
        self._sizes = list(sizes)
        device = decoder.embedding.device
        max_blocks = -(-max_model_len // cache.block_size)
        self._inputs = _Inputs.room(self._sizes[-1], max_blocks, max_model_len, device)
        self._steps: dict[int, _Step] = {}

    def takes(self, batch: StepBatch) -> bool:
        """Every slice is one token that draws another, and there are no more than a graph has."""
        counts = batch.layout.query_lens_host
        return (
            bool(self._sizes)
            and len(counts) <= self._sizes[-1]
            and len(batch.logits_at) == len(batch.emitting) == len(counts)
            and max(counts) == 1
        )

    def logits(self, batch: StepBatch) -> Tensor:
        """The logits of a step that `takes` is true of: float32 [S, V], until the next replay."""
        num_rows = len(batch.layout.query_lens_host)
        size = next(size for size in self._sizes if num_rows <= size)
        if size not in self._steps:
            self._steps[size] = _Step(self._inputs.first(size))
        step = self._steps[size]
        step.inputs.fill(batch, self._spare_block, self._cache.block_size)
        if step.replay is None and step.is_compiled:
            step.replay = self._recorded(step.inputs)
        logits = self._compute(step.inputs) if step.replay is None else step.replay()
        step.is_compiled = True
        return logits[:num_rows]

    def _compute(self, inputs: "_Inputs") -> Tensor:
        return self._decoder.logits(self._decoder(inputs.token_ids, inputs.layout, self._cache))

    def _recorded(self, inputs: "_Inputs") -> Compute | None:
        """None, and no recordings from now on, if this decoder cannot be recorded."""
        try:
            return self._record(lambda: self._compute(inputs))
        except NotRecorded as reason:
            log.debug("steps are not recorded: %s", reason)
            self._sizes = []
            return None


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What recorded steps read, in places that never move."""

    token_ids: Tensor
    layout: StepLayout

    @classmethod
    def room(cls, size: int, max_blocks: int, max_len: int, device: torch.device) -> "_Inputs":
        """Room for the largest step."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        layout = StepLayout(
            positions=zeros(size),
            slot_mapping=zeros(size),
            block_table=zeros(size, max_blocks),
            cu_seqlens_q=torch.arange(size + 1, dtype=torch.int32, device=device),
            context_lens=zeros(size, dtype=torch.int32),
            query_lens_host=[1] * size,
            context_lens_host=[max_len] * size,
        )
        return cls(zeros(size), layout)

    def first(self, size: int) -> "_Inputs":
        """The places of a step of so many rows."""
        layout = self.layout
        return _Inputs(
            self.token_ids[:size],
            StepLayout(
                positions=layout.positions[:size],
                slot_mapping=layout.slot_mapping[:size],
                block_table=layout.block_table[:size],
                cu_seqlens_q=layout.cu_seqlens_q[: size + 1],
                context_lens=layout.context_lens[:size],
                query_lens_host=layout.query_lens_host[:size],
                context_lens_host=layout.context_lens_host[:size],
            ),
        )

    def fill(self, batch: StepBatch, spare_block: int, block_size: int) -> None:
        """Put a step into the places that are read."""
        num_rows, num_blocks = batch.layout.block_table.shape
        mine, given = self.layout, batch.layout
        if num_rows < len(self.token_ids):
            mine.slot_mapping.fill_(spare_block * block_size)
            mine.block_table[:, 0].fill_(spare_block)
            mine.context_lens.fill_(1)
            mine.positions.zero_()
        self.token_ids[:num_rows].copy_(batch.token_ids)
        mine.positions[:num_rows].copy_(given.positions)
        mine.slot_mapping[:num_rows].copy_(given.slot_mapping)
        mine.context_lens[:num_rows].copy_(given.context_lens)
        mine.block_table[:num_rows, :num_blocks].copy_(given.block_table)


@dataclass(slots=True)
class _Step:
    """The inputs of one batch size, and its recording once there is one."""

    inputs: _Inputs
    is_compiled: bool = False
    replay: Compute | None = None


def powers_of_two(largest: int) -> list[int]:
    """Sizes up to the largest, and that: few enough to record them all."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]
