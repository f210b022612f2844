"""The smallest of engines, for tests that step a decoder over slices of their choice."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from penstock.kernels.step_layout import StepLayout
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache


@dataclass
class Row:
    """One sequence in the paged cache."""

    token_ids: list[int]
    block_table: list[int]
    num_computed: int = 0
    logits: list[Tensor] = field(default_factory=list)


def lay_out(rows: list[Row], counts: list[int], block_size: int) -> tuple[Tensor, StepLayout]:
    """The next counts[i] tokens of each row, as token ids and layout."""
    positions = [
        position
        for row, count in zip(rows, counts, strict=True)
        for position in range(row.num_computed, row.num_computed + count)
    ]
    owners = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
    slots = [
        owner.block_table[position // block_size] * block_size + position % block_size
        for owner, position in zip(owners, positions, strict=True)
    ]
    width = max((len(row.block_table) for row in rows), default=0)
    table = [row.block_table + [0] * (width - len(row.block_table)) for row in rows]
    contexts = [row.num_computed + count for row, count in zip(rows, counts, strict=True)]
    layout = StepLayout(
        positions=torch.tensor(positions, dtype=torch.int64),
        slot_mapping=torch.tensor(slots, dtype=torch.int64),
        block_table=torch.tensor(table, dtype=torch.int64).view(len(rows), width),
        cu_seqlens_q=torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        context_lens=torch.tensor(contexts, dtype=torch.int32),
        query_lens_host=counts,
        context_lens_host=contexts,
    )
    token_ids = [
        owner.token_ids[position] for owner, position in zip(owners, positions, strict=True)
    ]
    return torch.tensor(token_ids, dtype=torch.int64), layout


def make_cache(
    decoder: Decoder, num_blocks: int, block_size: int = 4, dtype: str = "float32"
) -> KVCache:
    return KVCache(
        decoder.spec,
        num_blocks,
        block_size,
        dtype,
        ops=decoder.ops,
        device=torch.device("cpu"),
    )


def tensors_of(cache: KVCache) -> list[Tensor]:
    """The reference's keys of each layer, then its values."""
    return [layer.keys for layer in cache.layers] + [layer.values for layer in cache.layers]


@torch.inference_mode()
def step(decoder: Decoder, cache: KVCache, rows: list[Row], counts: list[int]) -> None:
    """Compute the next counts[i] tokens of each row together, and keep their logits."""
    token_ids, layout = lay_out(rows, counts, cache.block_size)
    logits = decoder.logits(decoder(token_ids, layout, cache))
    for row, count, part in zip(rows, counts, logits.split(counts), strict=True):
        row.logits.append(part)
        row.num_computed += count


def scattered_rows(prompts: list[list[int]], block_size: int) -> tuple[list[Row], int]:
    """Rows whose blocks lie scattered in the cache, as those of a busy engine do; and how many
    blocks that takes.
    """
    needed = [-(-len(prompt) // block_size) for prompt in prompts]
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(sum(needed) + 3, generator=generator, device="cpu").tolist()
    rows = [
        Row(prompt, [order.pop() for _ in range(count)])
        for prompt, count in zip(prompts, needed, strict=True)
    ]
    return rows, sum(needed) + 3


def logits_of(
    decoder: Decoder,
    prompts: list[list[int]],
    *,
    chunk: int,
    block_size: int = 4,
    dtype: str = "float32",
) -> list[Tensor]:
    """Logits [len(prompt), vocab] of each prompt, all computed together, `chunk` tokens a step,
    over a cache of dtype.
    """
    rows, num_blocks = scattered_rows(prompts, block_size)
    cache = make_cache(decoder, num_blocks, block_size, dtype)
    while pending := [row for row in rows if row.num_computed < len(row.token_ids)]:
        counts = [min(chunk, len(row.token_ids) - row.num_computed) for row in pending]
        step(decoder, cache, pending, counts)
    return [torch.cat(row.logits) for row in rows]
