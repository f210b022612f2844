"""What distinguishes one decoder from another, as data.

Every axis along which the families differ is one field; where a variant needs facts of its own, it
is a class of its own. The variants are resolved when the decoder is built, and never looked at
again.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """Scale to unit root-mean-square, then by a weight (https://arxiv.org/abs/1910.07467)."""

    eps: float


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Centre, scale to unit variance, then weight and shift (https://arxiv.org/abs/1607.06450)."""

    eps: float


Norm: TypeAlias = RmsNorm | LayerNorm


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Every frequency divided by the factor: positions squeezed into the trained range."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Low frequencies divided by the factor, high ones kept, a ramp between
    (https://arxiv.org/abs/2407.21783).
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """Frequencies interpolated by how often they turn in the trained range
    (https://arxiv.org/abs/2309.00071).
    """

    factor: float
    original_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


RopeScaling: TypeAlias = LinearScaling | Llama3Scaling | YarnScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Queries and keys rotated by their position (https://arxiv.org/abs/2104.09864).

    The first `rotary_dim` elements of a head turn, the rest stay as they are.
    """

    theta: float
    rotary_dim: int
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True)
class Alibi:
    """A penalty on scores that grows with distance (https://arxiv.org/abs/2108.12409).

    `scale` multiplies it, for models that divide it by the root of the head size with the score
    itself. `precision` is the type in which it was rounded while the model learned.
    """

    scale: float = 1.0
    precision: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained vector per position, added to the embedding; `offset` rows of the table come before
    the first.
    """

    offset: int = 0


Position: TypeAlias = Rope | Alibi | Learned


@dataclass(frozen=True, slots=True)
class Sequential:
    """Attention, then the MLP, each added to the stream, with a norm before or after each."""

    norm: Literal["before", "after"] = "before"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Attention and the MLP read the same stream and are added to it together, under one norm or
    one each.
    """

    norms: Literal["shared", "separate"]


Residual: TypeAlias = Sequential | Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """down(activation(gate(x)) * up(x)) (https://arxiv.org/abs/2002.05202)."""

    intermediate: int
    activation: str = "silu"
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """down(activation(up(x)))."""

    intermediate: int
    activation: str
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Gated MLPs, of which every token visits the `top_k` its router prefers
    (https://arxiv.org/abs/2401.04088).
    """

    intermediate: int
    count: int
    top_k: int
    activation: str = "silu"


Mlp: TypeAlias = Gated | Plain | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A whole decoder: a stack of attention and MLP layers between an embedding and a head."""

    vocab_size: int
    hidden: int
    """Width of the stream that the layers read and add to."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    """The model's context length."""
    norm: Norm
    position: Position
    mlp: Mlp
    residual: Residual = Sequential()
    windows: tuple[int | None, ...] = ()
    """How many tokens each layer's attention sees, itself included; None means all. Empty: every
    layer sees all.
    """
    qk_norm: bool = False
    """Queries and keys are normalised head by head before they turn."""
    qkv_bias: bool = False
    out_bias: bool = False
    """The attention's output projection has a bias."""
    final_norm: bool = True
    embedding_width: int | None = None
    """Width of the embedding where it differs from `hidden`: projections lead in and out."""
    tied: bool = False
    """The head's matrix is the embedding's."""
    head_bias: bool = False
