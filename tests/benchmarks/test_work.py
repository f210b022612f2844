"""What the engines are asked to do: the same for all, and rates made of nothing but times."""

from statistics import median

import pytest
from benchmarks.peers.work import FULL, QUICK, Answer, all_work, chosen, expected_seconds, mixed

from penstock.vocabulary.errors import SettingsError

VOCAB_SIZE = 5000


def answer(seconds: float, *tokens: int) -> Answer:
    return Answer(seconds=seconds, tokens=list(tokens), peak_bytes=0)


def work(name: str):
    [found] = [each for each in all_work(VOCAB_SIZE, FULL) if each.name == name]
    return found


def test_the_work_is_the_same_every_time():
    for once, again in zip(all_work(VOCAB_SIZE, FULL), all_work(VOCAB_SIZE, FULL), strict=True):
        assert (once.warmup, once.rounds) == (again.warmup, again.rounds)


def test_no_prompt_is_sent_twice_so_that_no_prefix_cache_helps():
    prompts = [
        tuple(task.prompt)
        for work in all_work(VOCAB_SIZE, FULL)
        for batches in (work.warmup, *work.rounds)
        for batch in batches
        for task in batch
    ]
    assert len(set(prompts)) == len(prompts)


def test_the_mix_has_the_lengths_that_people_share():
    [[tasks]] = mixed(VOCAB_SIZE, 4000).rounds
    prompts = [len(task.prompt) for task in tasks]
    outputs = [task.max_tokens for task in tasks]
    assert median(prompts) == pytest.approx(95, rel=0.1)
    assert median(outputs) == pytest.approx(150, rel=0.1)
    assert (min(prompts), max(prompts)) == (4, 1024)
    assert min(outputs) >= 4 and max(outputs) == 800


def test_the_mix_is_64_requests_or_24_for_whoever_would_take_too_long():
    full = work("mixed")
    assert full.num_requests == 64
    assert full.shorter is not None and full.shorter.num_requests == 24
    assert full.shorter.shorter is None


def test_one_stream_has_a_prompt_of_32_and_an_answer_of_64():
    for [first], [whole] in work("one-stream").rounds:
        assert (len(first.prompt), first.max_tokens) == (32, 1)
        assert (len(whole.prompt), whole.max_tokens) == (32, 64)


def test_32_streams_have_prompts_of_16_and_answers_of_64():
    for _, wholes in work("streams").rounds:
        assert [(len(task.prompt), task.max_tokens) for task in wholes] == [(16, 64)] * 32


def test_decoding_is_what_the_tokens_after_the_first_take():
    rounds = [[answer(first, 1), answer(7.3, 64)] for first in (1.0, 9.9, 1.0)]
    assert work("one-stream").rate(rounds) == pytest.approx(63 / 6.3)


def test_a_prompt_counts_until_its_first_token_by_the_median():
    rounds = [[answer(2.0, 1)], [answer(50.0, 1)], [answer(1.0, 1)]]
    assert work("prompt-1024").rate(rounds) == 512


def test_the_mix_counts_output_tokens_only():
    assert mixed(VOCAB_SIZE, 2).rate([[answer(4.0, 30, 10)]]) == 10


def test_a_mix_is_expected_to_take_what_its_prompts_and_outputs_take():
    small = mixed(VOCAB_SIZE, 3)
    [[tasks]] = small.rounds
    num_prompt = sum(len(task.prompt) for task in tasks)
    num_output = sum(task.max_tokens for task in tasks)
    assert expected_seconds(small, 100, 10) == pytest.approx(num_prompt / 100 + num_output / 10)


def test_the_quick_work_is_a_small_part_of_all():
    def tokens(works):
        return sum(task.max_tokens for w in works for r in w.rounds for b in r for task in b)

    assert tokens(all_work(VOCAB_SIZE, QUICK)) < tokens(all_work(VOCAB_SIZE, FULL)) / 5


def test_work_can_be_chosen_by_name_and_an_unknown_name_is_refused():
    works = all_work(VOCAB_SIZE, FULL)
    assert [each.name for each in chosen(works, ["mixed", "one-stream"])] == ["one-stream", "mixed"]
    assert chosen(works, []) == works
    with pytest.raises(SettingsError, match=r"'stream'.*one-stream"):
        chosen(works, ["stream"])
