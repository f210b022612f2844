"""Percentiles, smoothed times, and who counts as served well, on worked examples."""

import pytest

from penstock.bench.timing import (
    distribution,
    is_served_well,
    moving_averages,
    percentile,
    summary,
)
from tests.bench.timings import timing


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 10.0), (25, 20.0), (50, 30.0), (90, 46.0), (99, 49.6), (100, 50.0)]
)
def test_percentiles_lie_on_straight_lines_between_neighbours(percent, value):
    assert percentile([50.0, 10.0, 40.0, 20.0, 30.0], percent) == pytest.approx(value)


def test_the_percentile_of_one_value_is_that_value():
    assert percentile([7.0], 99) == 7.0


def test_nothing_measured_has_no_percentiles():
    assert distribution([]).p50 is None


def test_the_moving_average_begins_with_the_first_value_and_weighs_the_next_by_two_seventeenths():
    assert moving_averages([1.0, 1.0]) == [1.0, 1.0]
    first, second, third = moving_averages([1.0, 18.0, 3.0])
    assert (first, second) == (1.0, pytest.approx(3.0))  # 1 + 17 * 2/17
    assert third == pytest.approx(3.0)


def test_a_first_token_may_take_a_second_for_512_tokens_of_prompt():
    assert is_served_well(timing(0.5, prompt_len=256), 2)
    assert not is_served_well(timing(0.51, prompt_len=256), 2)


def test_the_smoothed_time_between_tokens_must_hold_at_every_token():
    assert is_served_well(timing(gaps=(0.49,) * 40), 2)
    assert not is_served_well(timing(gaps=(0.26,) * 40), 4)


def test_one_pause_is_forgiven_when_smoothing_takes_it_away():
    # after gaps of 0.1 s, one of 1.8 s lifts the average to 0.1 + 1.7 * 2/17 = 0.3 s
    pause = timing(gaps=(0.1, 0.1, 1.8, 0.1, 0.1))
    assert is_served_well(pause, 2)
    assert is_served_well(pause, 3.3)
    assert not is_served_well(pause, 4)


def test_an_average_that_recovers_later_has_still_been_too_slow():
    assert not is_served_well(timing(gaps=(1.0, *(0.01,) * 100)), 2)


def test_a_single_token_is_judged_by_its_arrival_alone():
    assert is_served_well(timing(gaps=()), 6)


def test_a_failed_request_was_not_served_well_however_fast_it_failed():
    assert not is_served_well(timing(outcome="status 429"), 2)


def test_several_tokens_in_one_event_share_its_gap():
    assert timing(gaps=(0.4, 0.4), num_tokens=9).inter_token_s == pytest.approx([0.1, 0.1])


def test_effective_throughput_is_requests_per_second_times_the_share_served_well():
    well, slow = timing(0.1, (0.1,) * 9), timing(0.1, (0.3,) * 9, start_s=7.2)
    total = summary([well, well, well, slow], reading_speeds=[2, 4])
    assert total.duration_s == pytest.approx(10.0)
    assert total.requests_per_s == pytest.approx(0.4)
    at_2, at_4 = total.effective
    assert (at_2.share, at_2.requests_per_s) == (1.0, pytest.approx(0.4))
    assert (at_4.share, at_4.requests_per_s) == (0.75, pytest.approx(0.4 * 0.75))


def test_failures_are_counted_by_what_happened_and_enter_no_latency():
    failed = [timing(9.0, outcome="status 429"), timing(9.0, outcome="cut off")]
    total = summary([timing(0.1, ()), failed[0], failed[0], failed[1]], reading_speeds=[2])
    assert (total.num_sent, total.num_answered) == (4, 1)
    assert total.failures == {"status 429": 2, "cut off": 1}
    assert total.first_token_s.max == pytest.approx(0.1)
    assert total.output_tokens_per_s == pytest.approx(1 / total.duration_s)
    assert total.effective[0].share == 0.25


def test_a_run_without_an_answer_has_rates_of_zero():
    total = summary([timing(outcome="no connection")], reading_speeds=[2])
    assert total.requests_per_s == total.output_tokens_per_s == 0
    assert total.end_to_end_s.mean is None
