"""Which keys each query reads, worked out once per step and used by every layer.

The reference cuts a step into parts. Sequences with one query token form parts of similar context
length, so that one batched product serves many of them and little of it is padding. A longer slice
is cut into pieces of neighbouring queries, so that a piece reads only the keys before its end and
its mask stays small.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from penstock.kernels.paged_attention.contract import AttentionShape
from penstock.kernels.step_layout import StepLayout

PIECE_QUERIES = 256
"""Queries of one slice that share a part: enough for an efficient product, few enough to skip keys
that come after them.
"""
PART_ELEMENTS = 1 << 19
"""Elements of keys that a part of many sequences gathers at most, padding included. 2 MB in float32
stay in the processor's cache; with four times as many, 200 sequences took over twice the time.
"""
SHORT_CONTEXT = 64
"""Below this length padding costs less than another part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Consecutive queries of one sequence, the last of which is the token before `context_len`."""

    sequence: int
    first_row: int
    num_queries: int
    context_len: int
    first_key: int

    @property
    def num_keys(self) -> int:
        return self.context_len - self.first_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """P pieces of n queries each, reading C keys each."""

    rows: slice | Tensor
    """Which of the step's tokens these are, piece by piece."""
    num_pieces: int
    gather: Tensor
    """[P * K * C] int64 rows of a cache seen as [num_blocks * block_size * K, D]."""
    mask: Tensor | None
    """[P, 1 or K, G * n, C] float32 added to the scores, G query heads to a key-value head."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """All parts of a step, for the layers of one shape."""

    parts: list[Part]
    shape: AttentionShape


def plan_attention(layout: StepLayout, shape: AttentionShape, block_size: int) -> AttentionPlan:
    """Work out what `paged_attention` must know of a step; only this backend looks inside."""
    singles, longer = _pieces(layout, shape.window)
    most_keys = PART_ELEMENTS // (shape.num_kv_heads * shape.head_dim)
    groups = [*_groups(singles, most_keys), *([piece] for piece in longer)]
    return AttentionPlan([_part(group, layout, shape, block_size) for group in groups], shape)


def _pieces(layout: StepLayout, window: int | None) -> tuple[list[Piece], list[Piece]]:
    """Cut every slice into pieces: those of single queries, and the rest."""
    singles: list[Piece] = []
    longer: list[Piece] = []
    ends = accumulate(layout.query_lens_host)
    slices = zip(layout.query_lens_host, layout.context_lens_host, ends, strict=True)
    for sequence, (query_len, context_len, end_row) in enumerate(slices):
        for start in range(0, query_len, PIECE_QUERIES):
            num_queries = min(PIECE_QUERIES, query_len - start)
            end = context_len - query_len + start + num_queries
            piece = Piece(
                sequence=sequence,
                first_row=end_row - query_len + start,
                num_queries=num_queries,
                context_len=end,
                first_key=max(0, end - num_queries + 1 - window) if window else 0,
            )
            (singles if num_queries == 1 else longer).append(piece)
    return singles, longer


def _groups(singles: list[Piece], most_keys: int) -> Iterator[list[Piece]]:
    """Put pieces of single queries together so that no group is more than half padding, and none
    gathers more keys than `most_keys`.
    """
    group: list[Piece] = []
    room = 0
    shortest = 0
    for piece in sorted(singles, key=lambda piece: piece.num_keys, reverse=True):
        if group and (len(group) >= room or piece.num_keys < shortest):
            yield _in_order(group)
            group = []
        if not group:
            room = max(1, most_keys // piece.num_keys)
            shortest = piece.num_keys // 2 if piece.num_keys > SHORT_CONTEXT else 0
        group.append(piece)
    if group:
        yield _in_order(group)


def _in_order(group: list[Piece]) -> list[Piece]:
    return sorted(group, key=lambda piece: piece.first_row)


def _part(group: list[Piece], layout: StepLayout, shape: AttentionShape, block_size: int) -> Part:
    """Lay out pieces of equally many queries. A key that pads a shorter context repeats its last
    one, masked.
    """
    device = layout.positions.device
    num_keys = max(piece.num_keys for piece in group)
    facts = [(piece.sequence, piece.first_key, piece.context_len) for piece in group]
    sequences, first_keys, context_lens = torch.tensor(facts, device=device).unsqueeze(-1).unbind(1)
    positions = first_keys + torch.arange(num_keys, device=device)
    present = positions.minimum(context_lens - 1)
    blocks = layout.block_table[sequences.squeeze(-1)].gather(1, present // block_size)
    slots = blocks * block_size + present % block_size
    kv_heads = torch.arange(shape.num_kv_heads, device=device)
    gather = slots[:, None, :] * shape.num_kv_heads + kv_heads[None, :, None]
    return Part(
        rows=_rows(group, device),
        num_pieces=len(group),
        gather=gather.flatten(),
        mask=_mask(group, positions, context_lens, shape),
    )


def _rows(group: list[Piece], device: torch.device) -> slice | Tensor:
    first, last = group[0], group[-1]
    count = sum(piece.num_queries for piece in group)
    if last.first_row + last.num_queries - first.first_row == count:
        return slice(first.first_row, first.first_row + count)
    return torch.tensor([piece.first_row for piece in group], device=device)


def _mask(
    group: list[Piece], positions: Tensor, context_lens: Tensor, shape: AttentionShape
) -> Tensor | None:
    """Minus infinity where a query may not look, plus the bias of the keys; None where every query
    sees every key.
    """
    num_queries = group[0].num_queries
    if (
        num_queries == 1
        and shape.key_bias is None
        and len({piece.num_keys for piece in group}) == 1
    ):
        return None
    queries = context_lens + torch.arange(-num_queries, 0, device=positions.device)
    ahead = positions[:, None, :] > queries[:, :, None]
    if shape.window is not None:
        ahead |= positions[:, None, :] <= queries[:, :, None] - shape.window
    mask = torch.zeros_like(ahead, dtype=torch.float32).masked_fill_(ahead, float("-inf"))
    mask = mask[:, None, None]
    group_size = shape.num_heads // shape.num_kv_heads
    if shape.key_bias is not None:
        bias = shape.key_bias[:, positions.minimum(context_lens - 1)]
        bias = bias.view(shape.num_kv_heads, group_size, *positions.shape)
        mask = mask + bias.permute(2, 0, 1, 3).unsqueeze(3)
    return mask.expand(-1, -1, group_size, -1, -1).flatten(2, 3)
