"""SmoothQuant (https://arxiv.org/abs/2211.10438): what is hard to round, shared between activations
and weights, by what activations were measured to be.

Where one thing is all that another reads, the first can be divided by factors and the second
multiplied: a norm and its readers; a gated MLP's values, or a plain one's whose activation is relu,
and the matrix that brings them down; attention's values and its projection out. Factors are powers
of two: the float model stays exactly what it was.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from penstock.models.slots import ExpertsSlot, LinearSlot, NormSlot, Slot
from penstock.models.smoothing import largest, norm_readers, powers_of_two, scaled
from penstock.models.spec import DecoderSpec, Gated, Plain

_LIMIT = 1024.0
"""No factor is larger, nor its inverse: channels that are nearly dead are left nearly so."""


class Folding:
    """One layer's tensors, by slot name, each a list as `SlotReader.read` has it; changed in place.

    `met` is the largest magnitude that each linear met in each input, by slot name. strength, from
    0 to 1, says how much of the hardness goes into the weights.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        slots: list[Slot],
        tensors: dict[str, list[Tensor]],
        met: Mapping[str, Tensor],
        strength: float,
    ) -> None:
        self.spec = spec
        self.slots = {slot.name: slot for slot in slots}
        self.tensors = tensors
        self.met = met
        self.strength = strength

    def fold(self) -> None:
        """Everything that can be folded, and is read by something that was measured."""
        match self.spec.mlp:
            case Gated(intermediate=width):
                self._fold_rows("gate_up", width, "down")
            case Plain(intermediate=width, activation="relu"):
                self._fold_rows("up", 0, "down")
            case _:
                pass
        self._fold_values()
        for norm, readers in norm_readers(self.spec).items():
            if norm in self.slots:
                self._fold_norm(norm, readers)

    def _fold_norm(self, norm: str, readers: tuple[str, ...]) -> None:
        assert isinstance(self.slots[norm], NormSlot)
        columns = [weight for name in readers for weight in self._matrices(name)]
        factors = self._factors(self.met[readers[0]], columns)
        self.tensors[norm] = [scaled(part, 1 / factors) for part in self.tensors[norm]]
        for name in readers:
            self._multiply_columns(name, factors)

    def _fold_rows(self, up: str, start: int, down: str) -> None:
        """The rows of `up` from `start` on are what `down` reads, times what a gate lets pass."""
        factors = self._factors(self.met[down], self._matrices(down))
        self._divide_rows(up, start, factors)
        self._multiply_columns(down, factors)

    def _fold_values(self) -> None:
        """A value head is read through all query heads that share it, so they share its factors."""
        spec = self.spec
        shape = (spec.num_kv_heads, spec.num_heads // spec.num_kv_heads, spec.head_dim)
        met = self.met["out"].view(shape).amax(dim=1)
        need = largest(self.tensors["out"][0]).view(shape).amax(dim=1)
        factors = smoothing_factors(met, need, self.strength)
        self._divide_rows("qkv", (shape[0] * shape[1] + shape[0]) * shape[2], factors.flatten())
        self._multiply_columns("out", factors[:, None].expand(shape).flatten())

    def _factors(self, met: Tensor, readers: list[Tensor]) -> Tensor:
        need = torch.stack([largest(weight) for weight in readers]).amax(dim=0)
        return smoothing_factors(met, need, self.strength)

    def _matrices(self, name: str) -> list[Tensor]:
        """What reads the slot's input: its matrix, or every expert's gate and up."""
        return self.tensors[name][: self._count(name)]

    def _count(self, name: str) -> int:
        slot = self.slots[name]
        return slot.count if isinstance(slot, ExpertsSlot) else 1

    def _multiply_columns(self, name: str, factors: Tensor) -> None:
        parts, count = self.tensors[name], self._count(name)
        self.tensors[name] = [scaled(part, factors) for part in parts[:count]] + parts[count:]

    def _divide_rows(self, name: str, start: int, factors: Tensor) -> None:
        """Divide rows, from `start` on, of a linear's weight and bias."""
        slot = self.slots[name]
        assert isinstance(slot, LinearSlot)
        rows = torch.ones(slot.out_features, device=factors.device)
        rows[start : start + len(factors)] = 1 / factors
        self.tensors[name] = [
            scaled(part.mT, rows).mT if part.dim() == 2 else scaled(part, rows)
            for part in self.tensors[name]
        ]


def smoothing_factors(met: Tensor, need: Tensor, strength: float) -> Tensor:
    """By what to divide inputs whose largest magnitudes are `met`, and multiply columns whose
    largest are `need`; all float32, of one shape. Where either is zero, the factor is 1.

    Relative to the median: a common factor would change nothing, and as powers of two most factors
    are then 1, which leaves the columns that share a scale in 4 bits as alike as they were.
    """
    usable = (met > 0) & (need > 0)
    if not usable.any():
        return torch.ones_like(met)
    factors = met**strength / need ** (1 - strength)
    factors = torch.where(usable, factors / factors[usable].median(), 1.0)
    return powers_of_two(factors.clamp(1 / _LIMIT, _LIMIT))
