"""A sequence: token ids, and how many of them already live in the KV cache."""

from dataclasses import dataclass, field

from penstock.vocabulary.messages import FinishReason, Request


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One completion of a request, in the making.

    There is no phase. A sequence has *pending* tokens, which no step has been planned to compute:
    the whole prompt at first, everything again after a preemption, and one token in each step
    otherwise. Its last token or two may be *in flight*: a step that was planned draws them, but has
    not been committed, so they count and have a place, and nobody on the host knows what they are.

    `max_len` bounds prompt and output together. `end_token_ids` are the model's own end-of-text
    tokens, none if the request ignores them. `seed` keys the randomness of all completions of the
    request, together with `index` and the position of each token. `admitted_at` is when it was
    first computed, by `time.monotonic`. `constraint` is what limits the
    tokens beyond the sampling options, if anything does: it lets an end token pass only where the
    sequence may end. `pooled` is the sum of the hidden states computed so far, if they are summed.
    """

    request: Request
    max_len: int
    index: int = 0
    end_token_ids: frozenset[int] = frozenset()
    seed: int = 0
    constraint: object | None = None
    pooled: object | None = None

    token_ids: list[int] = field(init=False)
    prompt_len: int = field(init=False)
    num_computed: int = 0
    num_in_flight: int = 0
    num_cached: int = 0
    num_prompt_read: int = 0
    num_preemptions: int = 0
    promised_len: int = 0
    block_table: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)
    leader: "Sequence | None" = None
    siblings: list["Sequence"] = field(default_factory=list)
    arrival: int = 0
    admitted_at: float = 0.0
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None

    def __post_init__(self) -> None:
        self.token_ids = list(self.request.prompt_token_ids)
        self.prompt_len = len(self.token_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens known and in flight."""
        return len(self.token_ids) + self.num_in_flight

    @property
    def num_pending(self) -> int:
        """Tokens that no step has been planned to compute."""
        return self.num_tokens - self.num_computed

    @property
    def num_ahead(self) -> int:
        """Tokens in flight before the one that the latest step draws."""
        return max(0, self.num_in_flight - 1)

    @property
    def is_full(self) -> bool:
        """The last token that there is room for is in flight."""
        return self.num_in_flight > 0 and self.num_tokens >= self.max_len

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.prompt_len

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.prompt_len :]

    @property
    def reads_prompt(self) -> bool:
        """True if every prompt token must be computed, since something is read from each."""
        asks_for_logprobs = self.request.sampling.prompt_logprobs is not None
        return self.request.embeds or (self.index == 0 and asks_for_logprobs)

    @property
    def may_end(self) -> bool:
        """False while the token that the latest step draws must not end the sequence."""
        return self.num_generated + self.num_ahead >= self.request.sampling.min_tokens

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, token_id: int) -> None:
        """Take in a drawn token and see whether it ends the sequence."""
        may_end = self.num_generated >= self.request.sampling.min_tokens
        self.token_ids.append(token_id)
        is_stop_token = may_end and token_id in self.request.sampling.stop_token_ids
        is_end_token = token_id in self.end_token_ids and (may_end or self.constraint is not None)
        if is_stop_token or is_end_token:
            self.finish_reason = FinishReason.STOP
            self.stop_token_id = token_id if is_stop_token else None
        elif len(self.token_ids) >= self.max_len:
            self.finish_reason = FinishReason.LENGTH


@dataclass(frozen=True, slots=True)
class Slice:
    """`count` consecutive tokens of one sequence, from `start`, to be computed in this step.

    `is_last` is true when the slice reaches the sequence's end.
    """

    sequence: Sequence
    start: int
    count: int
    is_last: bool

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def emits(self) -> bool:
        """True when the slice's logits name a new token: it ends a sequence that goes on."""
        return self.is_last and not self.sequence.request.embeds


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: block copies (source, destination) to make first, then the slices to compute."""

    slices: list[Slice]
    copies: list[tuple[int, int]]

    @property
    def num_tokens(self) -> int:
        return sum(part.count for part in self.slices)
