"""Steps of single tokens, recorded once for a few batch sizes and replayed: a device then starts
hundreds of kernels at one word from the host (https://developer.nvidia.com/blog/cuda-graphs/).

What is recorded reads its inputs from places that never move. A step with fewer sequences than a
graph has rows fills it up with sequences of one token in a spare block, and nobody looks at their
logits. A size is recorded when it is used the second time; the first one compiles its kernels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from penstock.engine.step_batch import StepBatch
from penstock.kernels.step_layout import StepLayout
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache

Compute = Callable[[], Tensor]
Record = Callable[[Compute], Compute]
"""Turns a computation into one that replays what it recorded of it."""

LARGEST_GRAPH = 256


class Graphs:
    """The recorded steps of one decoder and cache."""

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        record: Record,
        *,
        max_num_seqs: int,
        max_model_len: int,
        spare_block: int,
    ) -> None:
        self._decoder = decoder
        self._cache = cache
        self._record = record
        self._max_model_len = max_model_len
        self._max_blocks = -(-max_model_len // cache.block_size)
        self._spare_block = spare_block
        self._sizes = _sizes(min(max_num_seqs, LARGEST_GRAPH))
        self._steps: dict[int, _Static] = {}

    def takes(self, batch: StepBatch) -> bool:
        """Every slice is one token that draws another, and there are no more than a graph has."""
        counts = batch.layout.query_lens_host
        return (
            len(counts) <= self._sizes[-1]
            and len(batch.logits_at) == len(batch.emitting) == len(counts)
            and max(counts) == 1
        )

    def logits(self, batch: StepBatch) -> Tensor:
        """The logits of a step that `takes` is true of: float32 [S, V], until the next replay."""
        num_rows = len(batch.layout.query_lens_host)
        size = next(size for size in self._sizes if num_rows <= size)
        if size not in self._steps:
            device = batch.token_ids.device
            self._steps[size] = _Static(size, self._max_blocks, self._max_model_len, device)
        static = self._steps[size]
        static.fill(batch, self._spare_block, self._cache.block_size)
        if static.replay is None and static.is_compiled:
            static.replay = self._record(lambda: self._compute(static))
        logits = self._compute(static) if static.replay is None else static.replay()
        static.is_compiled = True
        return logits[:num_rows]

    def _compute(self, static: "_Static") -> Tensor:
        return self._decoder.logits(self._decoder(static.token_ids, static.layout, self._cache))


class _Static:
    """The inputs of one batch size, and its recording once there is one."""

    def __init__(self, size: int, max_blocks: int, max_len: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.token_ids = zeros(size)
        self.layout = StepLayout(
            positions=zeros(size),
            slot_mapping=zeros(size),
            block_table=zeros(size, max_blocks),
            cu_seqlens_q=torch.arange(size + 1, dtype=torch.int32, device=device),
            context_lens=zeros(size, dtype=torch.int32),
            query_lens_host=[1] * size,
            context_lens_host=[max_len] * size,
        )
        self.is_compiled = False
        self.replay: Compute | None = None

    def fill(self, batch: StepBatch, spare_block: int, block_size: int) -> None:
        """Put a step into the places that are read."""
        num_rows, num_blocks = batch.layout.block_table.shape
        mine, given = self.layout, batch.layout
        mine.slot_mapping.fill_(spare_block * block_size)
        mine.block_table[:, 0].fill_(spare_block)
        mine.context_lens.fill_(1)
        mine.positions.zero_()
        self.token_ids[:num_rows].copy_(batch.token_ids)
        mine.positions[:num_rows].copy_(given.positions)
        mine.slot_mapping[:num_rows].copy_(given.slot_mapping)
        mine.context_lens[:num_rows].copy_(given.context_lens)
        mine.block_table[:num_rows, :num_blocks].copy_(given.block_table)


def record_on_cuda(compute: Compute) -> Compute:
    """Record a computation whose kernels have been compiled."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def _sizes(largest: int) -> list[int]:
    """Powers of two up to the largest, and that."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]
