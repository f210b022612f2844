"""The scheduler, step by step. tests/scheduling/traces.py says how to read a trace."""

from textwrap import dedent

import pytest

from penstock.scheduling.blocks import Blocks
from penstock.scheduling.scheduler import Scheduler
from penstock.vocabulary.messages import FinishReason
from tests.scheduling.traces import Simulation, check_invariants, sequences, trace


def lines(text: str) -> str:
    return dedent(text).strip()


def test_a_short_prompt_is_computed_in_one_step_and_then_grows_by_one_token_a_step():
    assert trace(sequences("A", 3, 3)) == lines("""
        1: A[0:3]*
        2: A[3:4]*
        3: A[4:5]*""")


def test_a_long_prompt_is_split_and_only_its_last_slice_emits():
    assert trace(sequences("A", 20, 2)) == lines("""
        1: A[0:8]
        2: A[8:16]
        3: A[16:20]*
        4: A[20:21]*""")


def test_a_long_prompt_fills_whatever_budget_the_running_sequences_leave():
    assert trace(sequences("A", 3, 3), sequences("B", 10, 2)) == lines("""
        1: A[0:3]* B[0:5]
        2: A[3:4]* B[5:10]*
        3: A[4:5]* B[10:11]*""")


def test_short_prompts_are_fused_into_one_step():
    assert trace(sequences("A", 2, 1), sequences("B", 3, 1), sequences("C", 3, 1)) == lines("""
        1: A[0:2]* B[0:3]* C[0:3]*""")


def test_no_prompt_is_begun_before_the_one_ahead_of_it_is_done():
    assert trace(sequences("A", 12, 1), sequences("B", 2, 1)) == lines("""
        1: A[0:8]
        2: A[8:12]* B[0:2]*""")


def test_no_more_sequences_run_than_allowed():
    assert trace(*[sequences(name, 1, 2) for name in "ABC"], max_num_seqs=2) == lines("""
        1: A[0:1]* B[0:1]*
        2: A[1:2]* B[1:2]*
        3: C[0:1]*
        4: C[1:2]*""")


def test_lower_priority_numbers_are_served_first_and_equal_ones_in_order_of_arrival():
    requests = [
        sequences("A", 8, 1, priority=1),
        sequences("B", 8, 1, priority=0),
        sequences("C", 8, 1, priority=1),
        sequences("D", 8, 1, priority=-3),
    ]
    assert trace(*requests) == lines("""
        1: D[0:8]*
        2: B[0:8]*
        3: A[0:8]*
        4: C[0:8]*""")


def test_a_known_prefix_is_not_computed_again():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", list(range(10)), 1))
    simulation.run()
    simulation.scheduler.add(sequences("B", [*range(10), 99], 1))
    assert simulation.run() == lines("""
        1: A[0:8]
        2: A[8:10]*
        3: B[8:11]*""")
    assert simulation.scheduler.stats().prefix_hits == 8
    assert simulation.scheduler.stats().prefix_queries == 21


def test_a_wholly_known_prompt_still_computes_its_last_token():
    simulation = Simulation.make()
    for name in "AB":
        simulation.scheduler.add(sequences(name, list(range(8)), 1))
        simulation.run()
    assert simulation.steps == ["1: A[0:8]*", "2: B[4:8]*"]


@pytest.mark.parametrize("apart", [{"salt": "tenant"}, {"adapter": "lora"}])
def test_a_prefix_is_not_shared_across_tenants_or_adapters(apart):
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", list(range(8)), 1))
    simulation.run()
    simulation.scheduler.add(sequences("B", list(range(8)), 1, **apart))
    simulation.run()
    assert simulation.steps[-1] == "2: B[0:8]*"


def test_a_sequence_that_reads_every_prompt_position_ignores_the_prefix_cache():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", list(range(8)), 1))
    simulation.run()
    simulation.scheduler.add(sequences("B", list(range(8)), 1, prompt_logprobs=0))
    simulation.run()
    assert simulation.steps[-1] == "2: B[0:8]*"


def test_several_completions_share_their_prompt_and_copy_only_the_block_they_write_to():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", 6, 2, n=3))
    assert simulation.run() == lines("""
        1: A[0:6]*
        2: A1<A A2<A A[6:7]* A1[5:6]* A2[5:6]*
        3: A1[6:7]* A2[6:7]*""")
    assert simulation.scheduler.blocks.num_used == 0


def test_completions_share_their_prompt_even_without_a_prefix_cache():
    simulation = Simulation.make(prefix_caching=False)
    simulation.scheduler.add(sequences("A", 8, 2, n=2))
    assert simulation.run() == lines("""
        1: A[0:8]*
        2: A1<A A[8:9]* A1[7:8]*
        3: A1[8:9]*""")


def test_when_blocks_run_out_the_one_with_least_to_lose_waits_and_is_computed_again():
    text = trace(
        sequences("A", 8, 9),
        sequences("B", 4, 9),
        num_blocks=5,
        token_budget=16,
        promise_tokens=2,
        prefix_caching=False,
    )
    assert text == lines("""
        1: A[0:8]* B[0:4]*
        2: A[8:9]* B[4:5]*
        3: A[9:10]* B[5:6]*
        4: A[10:11]* B[6:7]*
        5: A[11:12]* B[7:8]*
        6: -B A[12:13]*
        7: A[13:14]*
        8: A[14:15]*
        9: A[15:16]*
        10: B[0:9]*
        11: B[9:10]*
        12: B[10:11]*
        13: B[11:12]*""")


def test_the_least_important_is_preempted_even_if_it_loses_more():
    simulation = Simulation.make(num_blocks=5, token_budget=16, promise_tokens=2)
    simulation.scheduler.add(sequences("A", 8, 9, priority=5))
    simulation.scheduler.add(sequences("B", 4, 9, priority=0))
    simulation.run()
    assert "-A" in "\n".join(simulation.steps) and "-B" not in "\n".join(simulation.steps)


def test_nothing_new_is_admitted_while_a_preempted_sequence_waits():
    simulation = Simulation.make(
        num_blocks=5, token_budget=16, promise_tokens=2, prefix_caching=False
    )
    simulation.scheduler.add(sequences("A", 8, 9))
    simulation.scheduler.add(sequences("B", 4, 9))
    while not simulation.scheduler.preempted:
        simulation.step()
    simulation.scheduler.add(sequences("C", 1, 1, priority=-9))
    text = simulation.run()
    assert text.index("B[0:9]") < text.index("C[0:1]")


def test_a_preempted_sequence_finds_again_those_of_its_blocks_that_nobody_needed():
    simulation = Simulation.make(num_blocks=8, token_budget=40, promise_tokens=4)
    simulation.scheduler.add(sequences("A", 16, 6))
    simulation.scheduler.add(sequences("B", 8, 20))
    simulation.run()
    assert simulation.steps[5:7] == ["6: -B A[20:21]*", "7: B[8:13]*"]
    assert simulation.scheduler.stats().prefix_hits == 0, "finding one's own is no hit"


def test_admission_waits_for_the_whole_prompts_blocks():
    assert trace(
        sequences("A", 8, 2), sequences("B", 8, 2), num_blocks=4, token_budget=16, promise_tokens=2
    ) == lines("""
        1: A[0:8]*
        2: A[8:9]*
        3: B[0:8]*
        4: B[8:9]*""")


def test_cancelling_frees_the_blocks_before_the_next_step():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", 12, 5, n=3))
    simulation.scheduler.add(sequences("B", 4, 2))
    simulation.step()
    simulation.scheduler.cancel("A")
    check_invariants(simulation.scheduler)
    assert simulation.scheduler.blocks.num_used == 0
    simulation.run()
    assert simulation.steps[1:] == ["2: B[0:4]*", "3: B[4:5]*"]
    assert simulation.scheduler.num_sequences == 0


def test_one_completion_can_be_cancelled_and_the_others_go_on():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", 4, 3, n=2))
    simulation.step()
    simulation.scheduler.cancel("A", 0)
    assert simulation.run().splitlines()[1:] == ["2: A1[0:4]*", "3: A1[4:5]*", "4: A1[5:6]*"]


def test_completions_whose_leader_is_cancelled_compute_the_prompt_themselves():
    simulation = Simulation.make()
    simulation.scheduler.add(sequences("A", 12, 1, n=2))
    simulation.step()
    simulation.scheduler.cancel("A", 0)
    assert simulation.run().splitlines()[1:] == ["2: A1[8:12]*"]


def test_cancelling_an_unknown_request_is_no_error():
    scheduler = Simulation.make().scheduler
    scheduler.cancel("nobody")
    assert not scheduler.has_work


def test_an_end_token_finishes_a_sequence_and_the_reason_is_kept():
    [sequence] = sequences("A", 3, 10, end_token_ids=frozenset({7}))
    trace([sequence])
    assert sequence.finish_reason is FinishReason.STOP and sequence.stop_token_id is None
    assert sequence.token_ids[3:] == [7]


def test_a_stop_token_is_named_as_the_reason():
    [sequence] = sequences("A", 3, 10, stop_token_ids=[7])
    trace([sequence])
    assert sequence.finish_reason is FinishReason.STOP and sequence.stop_token_id == 7


def test_no_end_token_counts_before_the_minimum():
    [sequence] = sequences("A", 3, 10, end_token_ids=frozenset({7}), min_tokens=4)
    trace([sequence])
    assert sequence.num_generated == 5


def test_a_sequence_larger_than_the_cache_is_refused_at_once():
    scheduler = Scheduler(Blocks(2, 4), token_budget=8, max_num_seqs=4)
    with pytest.raises(ValueError, match="9 tokens do not fit into 2 blocks"):
        scheduler.add(sequences("A", 5, 4))


def test_the_budget_must_exceed_the_number_of_sequences():
    with pytest.raises(ValueError, match="max_num_seqs"):
        Scheduler(Blocks(2, 4), token_budget=4, max_num_seqs=4)


def test_tokens_that_were_forced_are_computed_together():
    """A's grammar forces two tokens behind each that is drawn; B's nothing."""
    assert trace(
        sequences("A", 3, 6), sequences("B", 2, 3), num_emitted=lambda seq: 3 - 2 * seq.arrival
    ) == dedent("""\
        1: A[0:3]* B[0:2]*
        2: B[2:3]* A[3:6]*
        3: B[3:4]*""")


def test_however_many_tokens_are_forced_everybody_computes_one_in_every_step():
    simulation = Simulation.make(token_budget=5, max_num_seqs=3, num_emitted=lambda seq: 9)
    for name in "ABC":
        simulation.scheduler.add(sequences(name, 1, 10))
    simulation.run()
    assert simulation.steps[:3] == [
        "1: A[0:1]* B[0:1]* C[0:1]*",
        "2: A[1:4] B[1:2] C[1:2]",
        "3: A[4:7] B[2:3] C[2:3]",
    ]


def test_tokens_forced_behind_the_end_are_not_taken():
    simulation = Simulation.make(num_emitted=lambda seq: 4)
    [sequence] = sequences("A", 3, 2)
    simulation.scheduler.add([sequence])
    simulation.run()
    assert simulation.taken == [[7, 7]]
    assert sequence.finish_reason is FinishReason.LENGTH and sequence.num_generated == 2
