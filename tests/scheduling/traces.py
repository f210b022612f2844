"""A scheduler's doings as text, so that a test can show what it expects.

One line per step: `1: A[0:3]* B[0:5]` says that step 1 computes A's tokens 0 to 2 and B's 0 to 4,
and that A's slice, marked by a star, emits a token. `-C` says that C was preempted, `B<A` that B
was given a copy of a block of A.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.scheduling.blocks import Blocks
from penstock.scheduling.scheduler import Scheduler
from penstock.scheduling.sequence import Plan, Sequence, Slice
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams


def sequences(
    name: str,
    prompt: int | list[int],
    max_tokens: int,
    *,
    n: int = 1,
    priority: int = 0,
    salt: str = "",
    adapter: str = "",
    end_token_ids: frozenset[int] = frozenset(),
    **sampling,
) -> list[Sequence]:
    """The n sequences of one request. A prompt given as a length is made of tokens of its own."""
    made_up = (
        [ord(name[0]) * 1000 + i for i in range(prompt)] if isinstance(prompt, int) else prompt
    )
    request = Request(
        request_id=name,
        prompt_token_ids=made_up,
        sampling=SamplingParams(n=n, max_tokens=max_tokens, **sampling),
        priority=priority,
        salt=salt,
        adapter=adapter,
    )
    max_len = len(made_up) + max_tokens
    return [
        Sequence(request=request, index=index, max_len=max_len, end_token_ids=end_token_ids)
        for index in range(n)
    ]


def check_invariants(scheduler: Scheduler) -> None:
    """What must hold between any two steps."""
    blocks = scheduler.blocks
    counts = [0] * blocks.num_blocks
    for sequence in scheduler.running:
        assert sequence.block_table, f"{sequence.request.request_id} runs without blocks"
        assert len(sequence.block_table) * blocks.block_size >= sequence.num_computed
        for block in sequence.block_table:
            counts[block] += 1
        writable = sequence.block_table[sequence.num_computed // blocks.block_size :]
        assert all(blocks.ref_counts[block] == 1 for block in writable), (
            "a shared block is writable"
        )
    assert counts == blocks.ref_counts
    assert blocks.num_used == sum(count > 0 for count in counts)
    owed = sum(scheduler._num_owed_to(sequence) for sequence in scheduler.running)
    assert owed == scheduler._num_owed <= blocks.num_free, "a promise without a block behind it"
    for sequence in [*scheduler.waiting, *scheduler.preempted]:
        assert not sequence.block_table and sequence.num_computed == 0
    assert len(scheduler.running) <= scheduler.max_num_seqs


def check_plan(scheduler: Scheduler, plan: Plan) -> None:
    """What must hold of every plan."""
    assert plan.num_tokens <= scheduler.token_budget
    planned = [part.sequence for part in plan.slices]
    growing = [seq for seq in scheduler.running if not seq.is_full or seq in planned]
    assert len(planned) == len(growing), "somebody was left out, or counted twice"
    assert set(planned) == set(growing)
    written: list[int] = []
    for part in plan.slices:
        assert part.count >= 1
        first, last = part.start, part.start + part.count - 1
        size = scheduler.blocks.block_size
        table = part.sequence.block_table
        written += table[first // size : last // size + 1]
    assert len(written) == len(set(written)), "two slices write to one block"
    assert all(scheduler.blocks.ref_counts[block] == 1 for block in written)


@dataclass
class Simulation:
    """A scheduler with an engine that emits the token 7 wherever one is due, or several of them as
    a grammar does that forces some.
    """

    scheduler: Scheduler
    num_emitted: Callable[[Sequence], int] | None = None
    plans_ahead: bool = False
    steps: list[str] = field(default_factory=list)
    taken: list[list[int]] = field(default_factory=list)
    uncommitted: Plan | None = None

    @classmethod
    def make(
        cls,
        *,
        num_blocks=64,
        block_size=4,
        token_budget=8,
        max_num_seqs=4,
        promise_tokens=4,
        num_emitted=None,
        plans_ahead=False,
        **kw,
    ) -> "Simulation":
        blocks = Blocks(num_blocks, block_size, **kw)
        return cls(
            Scheduler(
                blocks,
                token_budget=token_budget,
                max_num_seqs=max_num_seqs,
                promise_tokens=promise_tokens,
            ),
            num_emitted,
            plans_ahead,
        )

    def step(self) -> Plan:
        before = list(self.scheduler.preempted)
        plan = self.scheduler.schedule()
        check_plan(self.scheduler, plan)
        owner = {block: seq for seq in self.scheduler.running for block in seq.block_table}
        preempted = [f"-{name(seq)}" for seq in self.scheduler.preempted if seq not in before]
        copied = [f"{name(owner[to])}<{name(owner[of])}" for of, to in plan.copies]
        parts = [
            f"{name(part.sequence)}[{part.start}:{part.start + part.count}]" + "*" * part.emits
            for part in plan.slices
        ]
        self.steps.append(" ".join([f"{len(self.steps) + 1}:", *preempted, *copied, *parts]))
        due = self.uncommitted if self.plans_ahead else plan
        self.uncommitted = plan if self.plans_ahead else None
        if due is not None:
            self.taken = self.scheduler.commit(due, [self._emitted(part) for part in due.slices])
        check_invariants(self.scheduler)
        if self.num_emitted is None:
            assert sum(sequence.num_pending > 1 for sequence in self.scheduler.running) <= 1
        return plan

    def _emitted(self, part: Slice) -> list[int]:
        if not part.emits:
            return []
        return [7] * (1 if self.num_emitted is None else self.num_emitted(part.sequence))

    def run(self, max_steps: int = 10_000) -> str:
        while self.scheduler.has_work:
            assert len(self.steps) < max_steps, "the scheduler does not come to an end"
            self.step()
        return "\n".join(self.steps)


def name(sequence: Sequence) -> str:
    return sequence.request.request_id + (str(sequence.index) if sequence.index else "")


def trace(*requests: list[Sequence], **settings) -> str:
    """All requests arrive before step 1; the trace until the last has ended."""
    simulation = Simulation.make(**settings)
    for request in requests:
        simulation.scheduler.add(request)
    return simulation.run()
