"""Where a sequence stands in its grammar, and which tokens may come next."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from penstock.engine.grammar_compiler import failure
from penstock.scheduling.sequence import Sequence
from penstock.vocabulary.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher


@dataclass(slots=True, eq=False)
class Constraint:
    """One sequence's place in its grammar.

    `forced` are the tokens that must come next, because the grammar leaves no other text and the
    tokenizer splits it that way; they may be taken without asking the model. Where the grammar is
    complete the end-of-text token is forced.
    """

    matcher: "LLMatcher"
    end_token_id: int
    forced: deque[int]

    @classmethod
    def begin(cls, matcher: "LLMatcher", end_token_id: int) -> "Constraint":
        """At the beginning of a text. The matcher is copied."""
        return cls(matcher.deep_copy(), end_token_id, deque())

    def advance(self, token_id: int) -> int:
        """Take in a drawn token, and find out what must follow it. Returns the token: where one is
        forced it is that one, even if the model has drawn another, its logits being no numbers.
        """
        if self.forced:
            return self.forced.popleft()
        self.matcher.consume_token(token_id)
        forced_ids = self.matcher.compute_ff_tokens()
        if forced_ids:
            self.matcher.consume_tokens(forced_ids)
            self.forced.extend(forced_ids)
        if self.matcher.is_stopped() and not self.matcher.is_error():
            self.forced.append(self.end_token_id)
        return token_id

    def take_forced(self) -> list[int]:
        """All forced tokens, which now count as drawn."""
        taken = list(self.forced)
        self.forced.clear()
        return taken

    def failure(self, param: str) -> InvalidRequest | None:
        """Why the grammar cannot be followed any further, if it has become too complex."""
        return failure(self.matcher, param)


class Masks(NamedTuple):
    """What the constrained ones among R rows allow: `rows` are their numbers, and `bits` [C, 4W]
    has a bit for each of the vocabulary's V tokens, the lowest first (W = V / 32 rounded up).
    """

    rows: list[int]
    bits: npt.NDArray[np.uint8]


class MaskMaker:
    """Finds the masks of a step in a thread, while the model computes."""

    def __init__(self, vocab_size: int) -> None:
        self._num_words = -(-vocab_size // 32)
        self._thread: ThreadPoolExecutor | None = None
        self._executor: LLExecutor | None = None

    def start(self, sequences: list[Sequence]) -> Future[Masks] | None:
        """Begin to find out what may follow each of these sequences; None if everything may."""
        rows = [row for row, sequence in enumerate(sequences) if sequence.constraint is not None]
        if not rows:
            return None
        if self._thread is None:
            from llguidance import LLExecutor  # here, so that who needs no grammar needs it not

            self._thread, self._executor = ThreadPoolExecutor(1, "masks"), LLExecutor()
        return self._thread.submit(self._make, rows, [sequences[row] for row in rows])

    def _make(self, rows: list[int], sequences: list[Sequence]) -> Masks:
        words = np.zeros((len(sequences), self._num_words), dtype=np.uint32)
        free = []
        for number, sequence in enumerate(sequences):
            constraint = constraint_of(sequence)
            if constraint.forced:
                _set(words[number], constraint.forced[0])
            else:
                free.append((constraint.matcher, number))
        if free:
            assert self._executor is not None
            self._executor.unsafe_compute_mask_ptr(
                free, words.ctypes.data, words.strides[0], len(words)
            )
        for number, sequence in enumerate(sequences):
            if not sequence.may_end:
                _hold_back_the_end(words[number], sequence)
        return Masks(rows, words.view(np.uint8))


def constraint_of(sequence: Sequence) -> Constraint:
    """The constraint of a sequence that has one."""
    constraint = sequence.constraint
    assert isinstance(constraint, Constraint)
    return constraint


def _hold_back_the_end(words: npt.NDArray[np.uint32], sequence: Sequence) -> None:
    """min_tokens: no end, unless the grammar leaves nothing else."""
    held = words.copy()
    for token_id in sequence.end_token_ids:
        held[token_id // 32] &= ~np.uint32(1 << token_id % 32)
    if held.any():
        words[:] = held


def _set(words: npt.NDArray[np.uint32], token_id: int) -> None:
    words[token_id // 32] |= np.uint32(1 << token_id % 32)
