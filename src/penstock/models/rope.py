"""The tables of a rotary embedding: how far each pair of a head turns at each position."""

import math

import torch
from torch import Tensor

from penstock.models.spec import LinearScaling, Llama3Scaling, Rope, YarnScaling


def rope_tables(rope: Rope, max_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each [max_positions, rotary_dim / 2] float32."""
    positions = torch.arange(max_positions, dtype=torch.float32)
    angles = positions[:, None] * frequencies(rope)
    factor = rope.scaling.attention_factor if isinstance(rope.scaling, YarnScaling) else 1.0
    return (angles.cos() * factor).to(device), (angles.sin() * factor).to(device)


def frequencies(rope: Rope) -> Tensor:
    """Radians per position of each pair, scaled as the checkpoint asks: [rotary_dim / 2]."""
    exponents = torch.arange(0, rope.rotary_dim, 2, dtype=torch.float32) / rope.rotary_dim
    inverse = 1.0 / (rope.theta**exponents)
    match rope.scaling:
        case None:
            return inverse
        case LinearScaling(factor):
            return inverse / factor
        case Llama3Scaling() as scaling:
            return _llama3(inverse, scaling)
        case YarnScaling() as scaling:
            return _yarn(rope, scaling, inverse)


def _llama3(inverse: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Keep what turns often within the original context, slow down what hardly turns, blend
    between.
    """
    turns = scaling.original_positions * inverse / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * inverse / scaling.factor + kept * inverse


def _yarn(rope: Rope, scaling: YarnScaling, inverse: Tensor) -> Tensor:
    """Blend by pair index between the pairs that turn beta_fast and beta_slow times in the original
    context.
    """

    def pair_turning(times: float) -> float:
        ratio = scaling.original_positions / (times * 2 * math.pi)
        return rope.rotary_dim * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.rotary_dim - 1)
    span = high - low if high != low else 0.001  # a step is a very steep ramp
    pairs = torch.arange(rope.rotary_dim // 2, dtype=torch.float32)
    slowed = ((pairs - low) / span).clamp(0, 1)
    return inverse / scaling.factor * slowed + inverse * (1 - slowed)
