"""Requests as people have them, made up from a seed or read from a file."""

import statistics
from itertools import pairwise

import pytest

from penstock.bench.load import arrival_times
from penstock.bench.settings import WorkloadSettings
from penstock.bench.workload import Task, Workload, made_up_lengths
from penstock.vocabulary.errors import SettingsError


def workload(**settings) -> Workload:
    return Workload(WorkloadSettings(**settings), vocab_size=500, max_model_len=None)


def test_lengths_are_spread_as_in_sharegpt():
    prompts, outputs = zip(*made_up_lengths(20_000, seed=1), strict=True)
    assert statistics.median(prompts) == pytest.approx(95, rel=0.05)
    assert statistics.median(outputs) == pytest.approx(150, rel=0.05)
    assert statistics.mean(prompts) == pytest.approx(185, rel=0.1)
    # a lognormal's quartiles are e^(0.6745 sigma) from its median
    assert statistics.quantiles(prompts)[0] == pytest.approx(95 / 2.403, rel=0.06)
    assert statistics.quantiles(outputs)[2] == pytest.approx(150 * 1.715, rel=0.06)


def test_lengths_are_clipped_at_both_ends():
    prompts, outputs = zip(*made_up_lengths(20_000, seed=1), strict=True)
    assert (min(prompts), max(prompts)) == (4, 1024)
    assert min(outputs) >= 4 and max(outputs) == 800


def test_prompt_and_output_fit_the_context_together():
    pairs = made_up_lengths(2000, seed=1, max_model_len=300)
    assert max(prompt + output for prompt, output in pairs) == 300
    assert min(output for _, output in pairs) >= 4


def test_a_context_that_holds_no_request_is_refused():
    with pytest.raises(SettingsError, match="7 tokens is too short"):
        made_up_lengths(1, seed=0, max_model_len=7)


def test_the_same_seed_gives_the_same_requests_and_another_seed_others():
    assert workload(seed=3).round(1) == workload(seed=3).round(1)
    assert workload(seed=3).round(1) != workload(seed=4).round(1)


def test_rounds_have_the_same_lengths_but_no_common_prefix():
    first, second = workload().round(1), workload().round(2)
    assert len(first) == len(workload()) == 64
    for one, other in zip(first, second, strict=True):
        assert (len(one.prompt), one.max_tokens) == (len(other.prompt), other.max_tokens)
        assert one.prompt[:4] != other.prompt[:4]
        assert max(one.prompt) < 500


def test_a_file_of_one_s_own_is_sent_as_it_is(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": "Hello", "max_tokens": 3}\n\n{"prompt": [1, 2], "max_tokens": 5, "id": 9}\n'
    )
    assert workload(workload=path).round(1) == [Task("Hello", 3), Task([1, 2], 5)]
    assert workload(workload=path, num_requests=1).round(7) == [Task("Hello", 3)]
    with pytest.raises(SettingsError, match="2 requests, fewer than asked for"):
        workload(workload=path, num_requests=3)


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "Hello"}',
        '{"prompt": "", "max_tokens": 3}',
        '{"prompt": ["Hello"], "max_tokens": 3}',
        '{"prompt": "Hello", "max_tokens": 0}',
        "[1]",
        "{",
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Hello", "max_tokens": 3}\n' + line + "\n")
    with pytest.raises(SettingsError, match="line 2: this is no"):
        workload(workload=path)


def test_arrivals_are_poisson_and_repeatable():
    times = arrival_times(20_000, rate=5.0, seed=1)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0 and min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.2, rel=0.03)  # as an exponential has it
    assert times == arrival_times(20_000, rate=5.0, seed=1)
    assert times != arrival_times(20_000, rate=5.0, seed=2)
