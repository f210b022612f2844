"""Beam search: which of many continuations are likeliest as a whole.

As `transformers` does it. Each step offers every running beam its likeliest next tokens. Of all
candidates together the best go on; those among the best that end are finished. Beams are compared
by the sum of their tokens' log probabilities, finished ones by that sum over length ** penalty.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from penstock.vocabulary.messages import TokenLogprobs

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True)
class Beam:
    """A continuation: its tokens with the sum of their log probabilities, and whether it ended."""

    entries: tuple[TokenLogprobs, ...] = ()
    logprob: float = 0.0
    has_ended: bool = False

    @property
    def token_ids(self) -> list[int]:
        return [entry.token_id for entry in self.entries]

    def followed(self, entry: TokenLogprobs, *, has_ended: bool) -> "Beam":
        """The same with one more token."""
        return Beam((*self.entries, entry), self.logprob + entry.logprob, has_ended)


@dataclass
class BeamSearch:
    """One prompt's search. `running` beams want their likeliest next tokens, until it `is_done`.

    A positive `length_penalty` favours long continuations, a negative one short ones. The search is
    over when as many beams as its `width` have finished and, with `early_stopping`, at once;
    without, when none that runs can score better at its length; with "never", at any length.
    """

    width: int
    max_tokens: int
    end_token_ids: frozenset[int]
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    running: list[Beam] = field(default_factory=lambda: [Beam()])
    finished: list[Beam] = field(default_factory=list)

    @property
    def num_candidates(self) -> int:
        """How many of a beam's likeliest next tokens matter, so that enough of them go on."""
        return self.width + len(self.end_token_ids)

    @property
    def is_done(self) -> bool:
        if not self.running:
            return True
        if len(self.finished) < self.width:
            return False
        if self.early_stopping is True:
            return True
        length = len(self.running[0].entries)
        if self.early_stopping == "never" and self.length_penalty > 0:
            length = self.max_tokens
        return self._score(self.running[0].logprob, length) <= self.score(self.finished[-1])

    def step(self, likeliest: list[list[tuple[int, float]]]) -> None:
        """Let the running beams go on: for each, its likeliest next tokens, best first."""
        candidates = [
            beam.followed(
                TokenLogprobs(token_id, logprob, rank, top),
                has_ended=token_id in self.end_token_ids,
            )
            for beam, top in zip(self.running, likeliest, strict=True)
            for rank, (token_id, logprob) in enumerate(top, start=1)
        ]
        candidates.sort(key=lambda beam: beam.logprob, reverse=True)
        is_last = len(self.running[0].entries) + 1 >= self.max_tokens
        self.finished += [beam for beam in candidates[: self.width] if is_last or beam.has_ended]
        self.finished = sorted(self.finished, key=self.score, reverse=True)[: self.width]
        going_on = [beam for beam in candidates if not (is_last or beam.has_ended)]
        self.running = going_on[: self.width]

    def score(self, beam: Beam) -> float:
        """What finished beams are compared by."""
        return self._score(beam.logprob, len(beam.entries))

    def _score(self, logprob: float, length: int) -> float:
        return logprob / math.pow(length, self.length_penalty)
