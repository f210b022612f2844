"""The sampling options of a step's emitting rows, turned from objects per request to columns."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from penstock.engine.constraint import Masks
from penstock.scheduling.sequence import Sequence
from penstock.vocabulary.sampling_params import SamplingParams

_UNTOUCHED = SamplingParams()


class SamplingRows:
    """R rows, one per sequence that draws a token in this step; columns are made when first asked
    for. `masks` are those of the rows that follow a grammar.
    """

    def __init__(
        self, sequences: list[Sequence], device: torch.device, masks: Masks | None = None
    ) -> None:
        self.sequences = sequences
        self.params = [sequence.request.sampling for sequence in sequences]
        self.device = device
        self.masks = masks
        self._columns: dict[str, Tensor] = {}

    def any_set(self, *names: str) -> bool:
        """True if any row departs from the default of any of these options."""
        return any(
            getattr(params, name) != getattr(_UNTOUCHED, name)
            for name in names
            for params in self.params
        )

    def column(self, name: str) -> Tensor:
        """One option's value for each row, float32 [R, 1]."""
        if name not in self._columns:
            values: list[Any] = [getattr(params, name) for params in self.params]
            self._columns[name] = self._tensor(values, torch.float32).unsqueeze(1)
        return self._columns[name]

    def cells(self, token_ids: Callable[[Sequence], Iterable[int]]) -> tuple[Tensor, Tensor]:
        """(row, token id) of every token that `token_ids` names for a row: int64 [N] each."""
        listed = [list(token_ids(sequence)) for sequence in self.sequences]
        lens = torch.tensor([len(ids) for ids in listed])
        rows = torch.repeat_interleave(torch.arange(len(listed)), lens).to(self.device)
        return rows, self._tensor(list(chain.from_iterable(listed)), torch.int64)

    def grammar_bits(self) -> tuple[Tensor, Tensor]:
        """(row, bits) of the rows that follow a grammar: int64 [C], uint8 [C, B] as in `Masks`."""
        assert self.masks is not None, "a grammar without its mask"
        bits = torch.from_numpy(self.masks.bits).to(self.device, non_blocking=True)
        return self._tensor(self.masks.rows, torch.int64), bits

    def uniform_keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """(seed, index, position) of the token each row is about to draw, int64 [R] each."""
        return (
            self._tensor([sequence.seed for sequence in self.sequences], torch.int64),
            self._tensor([sequence.index for sequence in self.sequences], torch.int64),
            self._tensor([len(sequence.token_ids) for sequence in self.sequences], torch.int64),
        )

    def _tensor(self, values: list[Any], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype).to(self.device, non_blocking=True)
