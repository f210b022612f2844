"""Nothing waits forever, nothing thrashes and nothing leaks, whatever arrives.

The bounds are those that `scheduling/scheduler.py` states.
"""

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import given, settings

from penstock.scheduling.sequence import Sequence
from tests.scheduling.traces import Simulation, sequences

BLOCK_SIZE = 4


@dataclass(frozen=True)
class Machine:
    num_blocks: int
    token_budget: int
    max_num_seqs: int
    promise_tokens: int
    prefix_caching: bool
    forces: bool = False  # whether some sequences emit many tokens at once
    plans_ahead: bool = False  # whether a step is committed after the next one is planned

    @property
    def capacity(self) -> int:
        return self.num_blocks * BLOCK_SIZE

    @property
    def run_bound(self) -> int:
        """R of the scheduler's docstring, with the longest sequence that fits."""
        return self.capacity

    def simulation(self) -> Simulation:
        return Simulation.make(
            num_blocks=self.num_blocks,
            block_size=BLOCK_SIZE,
            token_budget=self.token_budget,
            max_num_seqs=self.max_num_seqs,
            promise_tokens=self.promise_tokens,
            prefix_caching=self.prefix_caching,
            num_emitted=_forced if self.forces else None,
            plans_ahead=self.plans_ahead,
        )


@st.composite
def machines(draw) -> Machine:
    max_num_seqs = draw(st.integers(1, 6))
    return Machine(
        num_blocks=draw(st.integers(2, 14)),
        token_budget=max_num_seqs + draw(st.integers(1, 12)),
        max_num_seqs=max_num_seqs,
        promise_tokens=draw(st.sampled_from([1, 3, 8])),
        prefix_caching=draw(st.booleans()),
        **draw(st.sampled_from([{}, {"forces": True}, {"plans_ahead": True}])),
    )


def _forced(sequence: Sequence) -> int:
    """How many tokens a sequence emits now: any number, but always the same."""
    return 1 + (5 * sequence.arrival + 3 * len(sequence.token_ids)) % 11 * (sequence.arrival % 3)


@dataclass(frozen=True)
class Arrival:
    gap: int  # steps since the one before
    prompt_len: int
    max_tokens: int
    n: int
    priority: int
    shares_prompt: bool
    cancelled_after: int | None


def arrivals(capacity: int) -> st.SearchStrategy[list[Arrival]]:
    one = st.integers(1, capacity - 1).flatmap(
        lambda prompt_len: st.builds(
            Arrival,
            gap=st.integers(0, 4),
            prompt_len=st.just(prompt_len),
            max_tokens=st.integers(1, capacity - prompt_len),
            n=st.sampled_from([1, 1, 1, 3]),
            priority=st.sampled_from([0, 0, 0, -1, 2]),
            shares_prompt=st.booleans(),
            cancelled_after=st.one_of(st.none(), st.none(), st.integers(0, 20)),
        )
    )
    return st.lists(one, min_size=1, max_size=12)


class Witness:
    """Watches every admitted sequence: how long it waits, and what it loses."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.last_computed: dict[object, int] = {}
        self.generated_at_admission: dict[object, int] = {}

    def watch(self, simulation: Simulation, step: int) -> None:
        preempted_before = set(simulation.scheduler.preempted)
        plan = simulation.step()
        for sequence in set(simulation.scheduler.preempted) - preempted_before:
            promise = self.machine.promise_tokens << (sequence.num_preemptions - 1)
            generated = sequence.num_tokens - sequence.prompt_len
            emitted = generated - self.generated_at_admission[sequence]
            self.generated_at_admission[sequence] = generated
            assert emitted > promise, "preempted before its promise was kept"
        for part in plan.slices:
            self.last_computed[part.sequence] = step
            self.generated_at_admission.setdefault(part.sequence, 0)
        bound = self.machine.max_num_seqs * self.machine.run_bound + 1
        for sequence in [*simulation.scheduler.running, *simulation.scheduler.preempted]:
            assert step - self.last_computed[sequence] < bound, "an admitted sequence starves"


def play(machine: Machine, requests: list[Arrival]) -> Simulation:
    simulation, witness, step = machine.simulation(), Witness(machine), 0
    cancel_at: dict[int, list[str]] = {}
    queue = [(sum(a.gap for a in requests[: i + 1]), i, a) for i, a in enumerate(requests)]
    expected = {}
    while queue or simulation.scheduler.has_work or cancel_at:
        while queue and queue[0][0] <= step:
            _, index, arrival = queue.pop(0)
            tokens = (
                list(range(arrival.prompt_len)) if arrival.shares_prompt else arrival.prompt_len
            )
            request = sequences(
                f"{chr(65 + index)}",
                tokens,
                arrival.max_tokens,
                n=arrival.n,
                priority=arrival.priority,
            )
            simulation.scheduler.add(request)
            if arrival.cancelled_after is None:
                expected |= dict.fromkeys(request, arrival.max_tokens)
            else:
                cancel_at.setdefault(step + arrival.cancelled_after, []).append(
                    request[0].request.request_id
                )
        for request_id in cancel_at.pop(step, []):
            simulation.scheduler.cancel(request_id)
        witness.watch(simulation, step)
        step += 1
        assert step < 100_000
    for sequence, max_tokens in expected.items():
        assert sequence.num_generated == max_tokens, "a sequence was lost"
    return simulation


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_admitted_sequence_makes_progress_within_the_stated_bound(data):
    machine = data.draw(machines())
    simulation = play(machine, data.draw(arrivals(machine.capacity)))
    assert simulation.scheduler.blocks.num_used == 0
    assert simulation.scheduler.num_sequences == 0
    assert simulation.scheduler._num_owed == 0


@settings(max_examples=60, deadline=None)
@given(machines(), st.integers(2, 12), st.integers(1, 3))
def test_equal_sequences_that_can_never_fit_together_all_come_to_an_end(machine, count, prompt_len):
    longest = Arrival(0, prompt_len, machine.capacity - prompt_len, 1, 0, False, None)
    assert not play(machine, [longest] * count).scheduler.has_work


@settings(max_examples=60, deadline=None)
@given(machines(), st.integers(1, 40))
def test_a_flood_of_important_arrivals_does_not_starve_what_was_admitted(machine, count):
    patient = Arrival(0, 1, machine.capacity - 1, 1, 9, False, None)
    urgent = Arrival(1, max(1, machine.capacity // 2), 2, 1, -9, False, None)
    assert not play(machine, [patient, *[urgent] * count]).scheduler.has_work


@settings(max_examples=60, deadline=None)
@given(machines(), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_a_storm_of_cancellations_leaves_nothing_behind(machine, delays):
    requests = [
        Arrival(1, 1 + i % 5, min(9, machine.capacity - 5), 2, 0, True, delay)
        for i, delay in enumerate(delays)
        if machine.capacity > 5
    ]
    if requests:
        assert play(machine, requests).scheduler.blocks.num_used == 0


def test_what_is_recomputed_is_bounded_by_doubling_promises():
    """Two sequences that need the whole cache: each is preempted a logarithm of times, not each
    step.
    """
    machine = Machine(
        num_blocks=64, token_budget=64, max_num_seqs=2, promise_tokens=4, prefix_caching=False
    )
    simulation = machine.simulation()
    for name in "AB":
        simulation.scheduler.add(sequences(name, 4, machine.capacity - 4))
    simulation.run()
    assert 1 <= simulation.scheduler.stats().num_preemptions <= 6
