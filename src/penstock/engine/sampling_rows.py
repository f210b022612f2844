"""The sampling options of a step's emitting rows, turned from objects per request to columns."""

from collections.abc import Callable, Collection
from dataclasses import fields
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penstock.engine.constraint import Masks
from penstock.engine.randomness import uniforms
from penstock.engine.step_batch import Drawn
from penstock.engine.transfers import Transfers
from penstock.kernels.sampling.contract import Shaping
from penstock.scheduling.sequence import Sequence
from penstock.text.watermark import Greens
from penstock.vocabulary.sampling_params import SamplingParams

_UNTOUCHED = SamplingParams()
_LEAST = float(np.finfo(np.float32).tiny)  # what is above 0 must be so in float32


class SamplingRows:
    """R rows, one per sequence that draws a token in this step; columns are made when first asked
    for. `masks` are those of the rows that follow a grammar; `greens` is for the watermarked ones;
    `drawn` has the tokens in flight.
    """

    def __init__(
        self,
        sequences: list[Sequence],
        transfers: Transfers,
        masks: Masks | None = None,
        greens: Greens | None = None,
        drawn: Drawn | None = None,
    ) -> None:
        self.sequences = sequences
        self.params = [sequence.request.sampling for sequence in sequences]
        self.transfers = transfers
        self.masks = masks
        self.greens = greens
        self.drawn = drawn
        self._columns: dict[str, Tensor] = {}

    def any_set(self, *names: str) -> bool:
        """True if any row departs from the default of any of these options."""
        return any(
            getattr(params, name) != getattr(_UNTOUCHED, name)
            for name in names
            for params in self.params
        )

    def column(self, name: str) -> Tensor:
        """One option's value for each row, float32 [R]."""
        if name not in self._columns:
            values = np.array([getattr(params, name) for params in self.params], np.float64)
            values[(values > 0) & (values < _LEAST)] = _LEAST
            self._columns[name] = self.tensor(values.astype(np.float32))
        return self._columns[name]

    def shaping(self) -> Shaping:
        """The options that shape the rows' distributions."""
        names = [field.name for field in fields(Shaping) if self.any_set(field.name)]
        return Shaping(**{name: self.column(name) for name in names})

    def cells(self, token_ids: Callable[[Sequence], Collection[int]]) -> tuple[Tensor, Tensor]:
        """(row, token id) of every token that `token_ids` names for a row: int64 [N] each."""
        listed = [token_ids(sequence) for sequence in self.sequences]
        lens = [len(ids) for ids in listed]
        # torch would take ten times as long to read a list.
        flat = np.fromiter(chain.from_iterable(listed), np.int64, sum(lens))
        owner = np.repeat(np.arange(len(listed)), lens)
        row, token = self.transfers.to_device([owner, flat])
        return row, token

    def seen(self, option: str, *, in_prompt: bool = False) -> tuple[Tensor, Tensor]:
        """(row, token id) of every token of the output, or of prompt and output, of the rows that
        depart from an option's default, the one in flight included.
        """
        untouched = getattr(_UNTOUCHED, option)

        def token_ids(sequence: Sequence) -> list[int]:
            if getattr(sequence.request.sampling, option) == untouched:
                return []
            return sequence.token_ids if in_prompt else sequence.output_token_ids

        row, token = self.cells(token_ids)
        late = [
            number
            for number, (sequence, params) in enumerate(
                zip(self.sequences, self.params, strict=True)
            )
            if sequence.num_ahead and getattr(params, option) != untouched
        ]
        if not late:
            return row, token
        assert self.drawn is not None
        sources = [self.drawn.rows[self.sequences[number]] for number in late]
        rows, source = self.transfers.to_device([np.array(late), np.array(sources)])
        return torch.cat((row, rows)), torch.cat((token, self.drawn.token_ids[source]))

    def grammar_bits(self) -> tuple[Tensor, Tensor]:
        """(row, bits) of the rows that follow a grammar: int64 [C], uint8 [C, B] as in `Masks`."""
        assert self.masks is not None, "a grammar without its mask"
        row, bits = self.transfers.to_device([np.array(self.masks.rows), self.masks.bits])
        return row, bits

    def marked(self, vocab_size: int) -> tuple[Tensor, Tensor]:
        """(row, bias) of the rows that are watermarked: int64 [W], and what is added to the logits
        of their green tokens, float32 [W, V].
        """
        assert self.greens is not None, "a watermark without a key"
        rows = [row for row, params in enumerate(self.params) if params.watermark]
        bias = np.empty((len(rows), vocab_size), np.float32)
        for place, row in enumerate(rows):
            marking = self.params[row].marking
            assert marking is not None
            before = self.sequences[row].token_ids[-1]
            green = self.greens.of(before, marking.gamma, vocab_size)
            np.multiply(np.unpackbits(green, count=vocab_size), marking.delta, out=bias[place])
        marked, added = self.transfers.to_device([np.array(rows), bias])
        return marked, added

    def uniforms(self) -> Tensor:
        """The random number of the token that each row is about to draw, float64 [R]."""
        seeds = np.array([sequence.seed for sequence in self.sequences])
        indices = np.array([sequence.index for sequence in self.sequences])
        positions = np.array(
            [len(sequence.token_ids) + sequence.num_ahead for sequence in self.sequences]
        )
        return self.tensor(uniforms(seeds, indices, positions))

    def tensor(self, values: npt.NDArray[np.generic]) -> Tensor:
        """Some values on the device."""
        [tensor] = self.transfers.to_device([values])
        return tensor
