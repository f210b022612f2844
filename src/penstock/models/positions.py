"""How a decoder knows the order of its tokens: turned heads, biased keys, or vectors added."""

import math
from typing import Protocol

import torch
from torch import Tensor

from penstock.kernels.ops import Ops, Rotation
from penstock.models.rope import rope_tables
from penstock.models.spec import Alibi, DecoderSpec, Learned, Position, Rope


class Positions(Protocol):
    """What the decoder asks of its positions; the three classes below answer it."""

    key_bias: Tensor | None

    def enter(self, x: Tensor, positions: Tensor) -> Tensor:
        """The embedded tokens [T, hidden] with what positions [T] add to them."""

    def rotation(self, positions: Tensor) -> Rotation | None:
        """How queries and keys at positions [T] turn, worked out once per step; None if they do
        not.
        """


class RotaryPositions:
    """Queries and keys turn; their product then depends on the distance only."""

    key_bias: Tensor | None = None

    def __init__(self, rope: Rope, max_positions: int, device: torch.device, ops: Ops) -> None:
        self.cos, self.sin = rope_tables(rope, max_positions, device)
        self.look_up = ops.embedding

    def enter(self, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def rotation(self, positions: Tensor) -> Rotation | None:
        cos, sin = (self.look_up(positions, table, table.dtype) for table in (self.cos, self.sin))
        return cos, sin


class LearnedPositions:
    """A vector per position joins the embedding."""

    key_bias: Tensor | None = None

    def __init__(self, table: Tensor, offset: int, ops: Ops) -> None:
        self.table = table[offset:]
        self.embedding = ops.embedding

    def enter(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.embedding(positions, self.table, x.dtype)

    def rotation(self, positions: Tensor) -> Rotation | None:
        return None


class AlibiPositions:
    """Scores fall with distance. Since softmax ignores what all keys share, a bias on the key's
    position does it.
    """

    def __init__(self, alibi: Alibi, spec: DecoderSpec, device: torch.device) -> None:
        slopes = alibi_slopes(spec.num_heads)
        positions = torch.arange(spec.max_positions)
        bias = slopes.to(alibi.precision)[:, None] * positions
        self.key_bias: Tensor | None = (bias.float() * alibi.scale).to(device)

    def enter(self, x: Tensor, positions: Tensor) -> Tensor:
        return x

    def rotation(self, positions: Tensor) -> Rotation | None:
        return None


def alibi_slopes(num_heads: int) -> Tensor:
    """[H] float32: a geometric series; beyond a power of two, every other term of the next finer
    one.
    """
    power = 2 ** math.floor(math.log2(num_heads))
    base = 2.0 ** (-8.0 / power)
    slopes = [base**i for i in range(1, power + 1)]
    finer = math.sqrt(base)
    slopes += [finer**i for i in range(1, 2 * (num_heads - power), 2)]
    return torch.tensor(slopes, dtype=torch.float32)


def make_positions(
    spec: DecoderSpec, table: Tensor | None, device: torch.device, ops: Ops
) -> Positions:
    """The component for a spec's kind of position; table holds the vectors of learned ones."""
    position: Position = spec.position
    match position:
        case Rope():
            return RotaryPositions(position, spec.max_positions, device, ops)
        case Alibi():
            return AlibiPositions(position, spec, device)
        case Learned(offset):
            assert table is not None
            return LearnedPositions(table, offset, ops)
