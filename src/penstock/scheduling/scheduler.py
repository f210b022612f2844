"""Dynamic SplitFuse (DeepSpeed-FastGen, arXiv 2401.08671) with promises instead of luck.

Every step computes at most `token_budget` tokens: first the one pending token of every running
sequence that has just one, then as much as the budget still holds of those that have more, be it
their prompt or tokens that a grammar has forced. Splitting long prompts and fusing short ones keeps
the size of a step, and so its time, constant.

**Admission.** A sequence is admitted when blocks for all of its known tokens are free, and beyond
them room to grow: a *promise* of `promise_tokens` further tokens. Promised blocks are not handed to
anyone else, so a sequence within its promise never lacks a block.

**Preemption.** A sequence that has outgrown its promise takes what nobody was promised. When
nothing is left, one of the sequences beyond their promise gives its blocks back and is recomputed
later: the least important, then the one that loses the fewest computed tokens. Its next promise is
twice as large, so the tokens emitted between two preemptions of a sequence double each time.

**Progress.** Every running sequence is computed in every step, by one token at least: nobody is
offered what those behind him need for that, and `max_num_seqs < token_budget`. So it ends within
R = max_len steps unless it is preempted. (Where no grammar forces tokens, only one running sequence
has more than one pending, since admission stops when the budget is used up; at least
`token_budget - max_num_seqs + 1` of them are computed in a step.) Preempted sequences are
readmitted in the order of their preemption, before anything new; while one waits, nothing else is
admitted, so it waits at most R steps per sequence ahead of it. Hence an admitted sequence computes
at least one token in any max_num_seqs * R + 1 consecutive steps, whatever arrives.
tests/scheduling/test_progress.py holds the scheduler to all of this.
"""

from bisect import insort
from collections import deque
from typing import Any

from penstock.scheduling.blocks import Blocks, block_hash, root_hash
from penstock.scheduling.sequence import Plan, Sequence, Slice
from penstock.vocabulary.messages import EngineStats, FinishReason

PROMISE_TOKENS = 64


class Scheduler:
    """Owns the sequences and their order, and decides what the next step computes.

    What `schedule` plans counts as computed from then on, and what it draws as in flight, so the
    next step may be planned before this one is committed: at most one step ahead, and every step is
    committed in its turn. A sequence's end is then noticed one step late: that step computes one
    token in vain, and writes to blocks that are free again, but before any step that takes them.
    `add` and `cancel` may come between two of these calls.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        token_budget: int,
        max_num_seqs: int,
        promise_tokens: int = PROMISE_TOKENS,
    ) -> None:
        if not 0 < max_num_seqs < token_budget:
            raise ValueError(
                f"need 0 < max_num_seqs ({max_num_seqs}) < token_budget ({token_budget})"
            )
        self.blocks = blocks
        self.token_budget = token_budget
        self.max_num_seqs = max_num_seqs
        self.promise_tokens = promise_tokens
        self.running: list[Sequence] = []  # in order of admission
        self.preempted: deque[Sequence] = deque()  # in order of preemption
        self.waiting: list[Sequence] = []  # by priority, then arrival
        self._requests: dict[str, list[Sequence]] = {}
        self._num_arrivals = 0
        self._num_owed = 0  # blocks promised to running sequences and not yet taken
        self._num_preemptions = 0
        self._num_recomputed = 0
        self._prefix_queries = 0
        self._prefix_hits = 0

    # -- what is there ---------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.preempted or self.waiting)

    @property
    def num_sequences(self) -> int:
        """Sequences alive, those included that wait for their leader."""
        return sum(len(sequences) for sequences in self._requests.values())

    def stats(self, **counters: Any) -> EngineStats:
        """What the scheduler knows of the engine's state, with the engine's own counters."""
        return EngineStats(
            **counters,
            num_running=len(self.running),
            num_waiting=self.num_sequences - len(self.running),
            num_blocks=self.blocks.num_blocks,
            num_blocks_used=self.blocks.num_used,
            num_preemptions=self._num_preemptions,
            num_recomputed_tokens=self._num_recomputed,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
        )

    # -- coming and going ------------------------------------------------------------------------

    def add(self, sequences: list[Sequence]) -> None:
        """Queue the completions of one request. The first computes their prompt."""
        leader, *siblings = sequences
        if self.blocks.blocks_for(leader.max_len) > self.blocks.num_blocks:
            raise ValueError(
                f"{leader.max_len} tokens do not fit into {self.blocks.num_blocks} blocks"
            )
        for sequence in sequences:
            sequence.arrival = self._num_arrivals
            self._num_arrivals += 1
        for sibling in siblings:
            sibling.leader = leader
        leader.siblings = siblings
        self._requests[leader.request.request_id] = list(sequences)
        self._queue(leader)

    def cancel(self, request_id: str, index: int | None = None) -> None:
        """End one completion of a request, or all, and free their blocks. An unknown id is no
        error.
        """
        for sequence in list(self._requests.get(request_id, ())):
            if index is None or sequence.index == index:
                sequence.finish_reason = FinishReason.CANCELLED
                self._forget(sequence)

    def _queue(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=lambda other: (other.request.priority, other.arrival))

    def _queue_siblings(self, leader: Sequence) -> None:
        """Nothing is left to wait for: the prompt is computed, or never will be by this leader."""
        for sibling in leader.siblings:
            if not sibling.is_finished:
                self._queue(sibling)
        leader.siblings = []

    def _forget(self, sequence: Sequence) -> None:
        for place in (self.running, self.preempted, self.waiting):
            if sequence in place:
                place.remove(sequence)
        self._give_back(sequence)
        self._queue_siblings(sequence)
        siblings = self._requests[sequence.request.request_id]
        siblings.remove(sequence)
        if not siblings:
            del self._requests[sequence.request.request_id]

    # -- planning --------------------------------------------------------------------------------

    def schedule(self) -> Plan:
        """Choose the next step's slices, with blocks for every one of them."""
        budget = self.token_budget
        has_preempted = self._make_room()
        slices: list[Slice] = []
        growing = [sequence for sequence in self.running if not sequence.is_full]
        num_behind = len(growing)
        for sequence in sorted(growing, key=lambda sequence: sequence.num_pending > 1):
            num_behind -= 1
            budget -= self._offer(sequence, budget - num_behind, slices)
        copies: list[tuple[int, int]] = []
        while budget and not has_preempted and len(self.running) < self.max_num_seqs:
            queue = self.preempted or self.waiting
            if not queue or not self._admit(queue[0], copies):
                break
            sequence = self.preempted.popleft() if self.preempted else self.waiting.pop(0)
            self.running.append(sequence)
            budget -= self._offer(sequence, budget, slices)
        for part in slices:
            part.sequence.num_computed = part.end
            part.sequence.num_in_flight += part.emits
        return Plan(slices, copies)

    def _offer(self, sequence: Sequence, budget: int, slices: list[Slice]) -> int:
        count = min(sequence.num_pending, budget)
        if count:
            is_last = count == sequence.num_pending
            slices.append(Slice(sequence, sequence.num_computed, count, is_last))
        return count

    def _make_room(self) -> bool:
        """See that every running sequence has blocks for its known tokens; True if that cost one
        its own.
        """
        num_before = self._num_preemptions
        for sequence in list(self.running):
            while sequence in self.running and self._lacks_block(sequence):
                if self._num_unpromised(sequence) > 0:
                    self._take_block(sequence)
                else:
                    self._preempt(self._victim())
        return self._num_preemptions > num_before

    def _lacks_block(self, sequence: Sequence) -> bool:
        room = len(sequence.block_table) * self.blocks.block_size
        return room < sequence.num_tokens and not sequence.is_full

    def _num_owed_to(self, sequence: Sequence) -> int:
        return max(0, self.blocks.blocks_for(sequence.promised_len) - len(sequence.block_table))

    def _num_unpromised(self, sequence: Sequence) -> int:
        """Free blocks that this sequence may take: those promised to it, and those promised to
        nobody.
        """
        return self.blocks.num_free - self._num_owed + self._num_owed_to(sequence)

    def _take_block(self, sequence: Sequence) -> None:
        self._num_owed -= self._num_owed_to(sequence)
        sequence.block_table.append(self.blocks.allocate())
        self._num_owed += self._num_owed_to(sequence)

    # -- admission -------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence, copies: list[tuple[int, int]]) -> bool:
        """Give a sequence blocks for all its known tokens and a promise, if both fit."""
        shared = self._shareable(sequence)
        promise = self.promise_tokens << sequence.num_preemptions
        promised_len = min(len(sequence.token_ids) + promise, sequence.max_len)
        num_new = self.blocks.blocks_for(max(promised_len, len(sequence.token_ids))) - len(shared)
        num_revived = sum(self.blocks.ref_counts[block] == 0 for block in shared)
        if num_new + num_revived > self.blocks.num_free - self._num_owed:
            return False
        for block in shared:
            self.blocks.share(block)
        num_known = self.blocks.blocks_for(len(sequence.token_ids))
        own = [self.blocks.allocate() for _ in range(num_known - len(shared))]
        sequence.block_table = shared + own
        sequence.num_computed = len(shared) * self.blocks.block_size
        sequence.promised_len = promised_len
        self._num_owed += self._num_owed_to(sequence)
        self._count_hits(sequence)
        self._fork(sequence, copies)
        return True

    def _shareable(self, sequence: Sequence) -> list[int]:
        """Computed blocks to begin with; the last token is always left to compute."""
        if sequence.reads_prompt:
            return []
        num_full = (len(sequence.token_ids) - 1) // self.blocks.block_size
        leader = self._leader(sequence)
        if leader is not None:
            return leader.block_table[:num_full]
        if not self.blocks.prefix_caching:
            return []
        return self.blocks.match(self._hash(sequence, index) for index in range(num_full))

    def _leader(self, sequence: Sequence) -> Sequence | None:
        """The sibling that holds this fresh sequence's whole prompt computed, if there is one."""
        leader = sequence.leader
        is_there = leader is not None and leader.num_computed >= sequence.prompt_len
        return leader if is_there and sequence.num_generated == 0 else None

    def _fork(self, sequence: Sequence, copies: list[tuple[int, int]]) -> None:
        """Copy the leader's last prompt block, which both will write to: only one token is left to
        compute.

        The copy is made when the fork is, since the fork's first write comes in this very step.
        """
        leader = None if sequence.reads_prompt else self._leader(sequence)
        if leader is not None:
            last = (sequence.prompt_len - 1) // self.blocks.block_size
            copies.append((leader.block_table[last], sequence.block_table[last]))
            sequence.num_computed = sequence.prompt_len - 1

    def _count_hits(self, sequence: Sequence) -> None:
        """Only a first admission of a first completion tells how well the cache does."""
        if sequence.num_preemptions == 0 and sequence.leader is None:
            sequence.num_cached = sequence.num_computed
            self._prefix_queries += sequence.prompt_len
            self._prefix_hits += sequence.num_cached

    def _hash(self, sequence: Sequence, index: int) -> bytes:
        """The hash of a sequence's full block, and so of everything before it; computed once."""
        hashes, size = sequence.block_hashes, self.blocks.block_size
        while len(hashes) <= index:
            parent = (
                hashes[-1] if hashes else root_hash(sequence.request.salt, sequence.request.adapter)
            )
            start = len(hashes) * size
            hashes.append(block_hash(parent, sequence.token_ids[start : start + size]))
        return hashes[index]

    # -- preemption ------------------------------------------------------------------------------

    def _victim(self) -> Sequence:
        """Among those beyond their promise: the least important, then the cheapest to recompute."""
        beyond = [seq for seq in self.running if seq.num_tokens > seq.promised_len]
        return max(
            beyond, key=lambda seq: (seq.request.priority, -self._num_lost(seq), seq.arrival)
        )

    def _num_lost(self, sequence: Sequence) -> int:
        """Computed tokens that would be gone: those in blocks which nobody else holds."""
        num_shared = sum(self.blocks.ref_counts[block] > 1 for block in sequence.block_table)
        return sequence.num_computed - num_shared * self.blocks.block_size

    def _preempt(self, sequence: Sequence) -> None:
        self._num_preemptions += 1
        self._num_recomputed += sequence.num_computed
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.num_preemptions += 1
        self.preempted.append(sequence)

    def _give_back(self, sequence: Sequence) -> None:
        if sequence.block_table:
            self._num_owed -= self._num_owed_to(sequence)
            self.blocks.release(sequence.block_table)
        sequence.block_table = []
        sequence.num_computed = 0
        sequence.promised_len = 0

    # -- what came out ---------------------------------------------------------------------------

    def commit(self, plan: Plan, emitted: list[list[int]]) -> list[list[int]]:
        """Take in a computed step: `emitted[i]` are the tokens to follow slice i.

        What is returned are those that its sequence has taken: none behind its end.
        """
        taken: list[list[int]] = [[] for _ in plan.slices]
        for number, part in enumerate(plan.slices):
            sequence = part.sequence
            if sequence.is_finished:
                continue
            sequence.num_in_flight -= part.emits
            self._register(part)
            for token_id in emitted[number]:
                sequence.append(token_id)
                taken[number].append(token_id)
                if sequence.is_finished:
                    break
            if sequence.request.embeds and part.is_last:
                sequence.finish_reason = FinishReason.STOP
            if sequence.num_computed >= sequence.prompt_len:
                self._queue_siblings(sequence)
            if sequence.is_finished:
                self._forget(sequence)
        return taken

    def _register(self, part: Slice) -> None:
        """Have the prefix cache know the blocks that a slice has filled, unless its sequence has
        been preempted since.
        """
        sequence = part.sequence
        if not self.blocks.prefix_caching or not sequence.block_table:
            return
        size = self.blocks.block_size
        for index in range(part.start // size, part.end // size):
            self.blocks.register(sequence.block_table[index], self._hash(sequence, index))
