"""A sequence: token ids, and how many of them already live in the KV cache."""

from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.vocabulary.messages import FinishReason


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One completion in the making.

    There is no phase. A sequence has *pending* tokens, known but not yet computed: the whole prompt at
    first, everything again after a preemption, and one token in each step otherwise.

    `max_len` bounds prompt and output together. `end_token_ids` and `stop_token_ids` finish the
    sequence, the former being the model's own; `min_tokens` is how many come before either may.
    `computes_all` asks for every prompt token to be computed, since something is read from each.
    """

    request_id: str
    index: int
    token_ids: list[int]
    prompt_len: int
    max_len: int
    end_token_ids: frozenset[int] = frozenset()
    stop_token_ids: frozenset[int] = frozenset()
    min_tokens: int = 0
    priority: int = 0
    salt: str = ""
    adapter: str = ""
    computes_all: bool = False

    num_computed: int = 0
    num_cached: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    siblings: list["Sequence"] = field(default_factory=list)
    leader: "Sequence | None" = None
    arrival: int = 0
    num_preemptions: int = 0
    promised_len: int = 0
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None

    @property
    def num_pending(self) -> int:
        """Tokens known but not yet computed."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.prompt_len

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, token_id: int) -> None:
        """Take in a drawn token and see whether it ends the sequence."""
        self.token_ids.append(token_id)
        if self.num_generated > self.min_tokens and (
            token_id in self.end_token_ids or token_id in self.stop_token_ids
        ):
            self.finish_reason = FinishReason.STOP
            self.stop_token_id = token_id if token_id in self.stop_token_ids else None
        elif len(self.token_ids) >= self.max_len:
            self.finish_reason = FinishReason.LENGTH


class Slice(NamedTuple):
    """`count` consecutive tokens of one sequence, from `start`, to be computed in this step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def emits(self) -> bool:
        """True when the slice reaches the sequence's end, so its logits name a new token."""
        return self.start + self.count == len(self.sequence.token_ids)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: block copies (source, destination) to make first, then the slices to compute."""

    slices: list[Slice]
    copies: list[tuple[int, int]]

    @property
    def num_tokens(self) -> int:
        return sum(part.count for part in self.slices)
