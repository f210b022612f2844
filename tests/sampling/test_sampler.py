"""Each sampling option on a vocabulary small enough to follow by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penstock.engine import sampler
from penstock.engine.constraint import Masks
from penstock.engine.logprobs import report
from penstock.engine.randomness import uniforms
from penstock.engine.sampler import NEVER, sample
from penstock.engine.sampling_rows import SamplingRows
from penstock.engine.transfers import Transfers
from penstock.kernels.ops import REFERENCE, Ops
from penstock.scheduling.sequence import Sequence
from penstock.text.watermark import Greens
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams
from penstock.vocabulary.watermark import Watermark
from tests.kernels.instruction_sets import ISAS, cpu_ops

CPU = Transfers(torch.device("cpu"))
BACKENDS = {"reference": REFERENCE} | ({"cpu": cpu_ops()} if ISAS else {})


def sequence(
    prompt: list[int] = [0],  # noqa: B006 (never changed)
    output: list[int] = [],  # noqa: B006
    *,
    seed: int = 0,
    index: int = 0,
    end_token_ids: frozenset[int] = frozenset(),
    **options,
) -> Sequence:
    request = Request(
        request_id="r", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=100, **options)
    )
    made = Sequence(
        request=request, max_len=200, seed=seed, index=index, end_token_ids=end_token_ids
    )
    made.token_ids += output
    return made


def rows(*sequences: Sequence) -> SamplingRows:
    return SamplingRows(list(sequences), CPU)


def draw(logits: Tensor, rows: SamplingRows, ops: Ops = REFERENCE) -> Tensor:
    return sample(logits, rows, ops)


def probs(*values: float) -> Tensor:
    """Logits of one row with these probabilities."""
    return torch.tensor([values]).log()


def kept(logits: Tensor) -> list[list[int]]:
    """The token ids of each row that may still be drawn."""
    return [[i for i, value in enumerate(row) if value > NEVER] for row in logits.tolist()]


def test_greedy_takes_the_likeliest_token():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 4.0]])
    assert draw(logits, rows(sequence(temperature=0), sequence(temperature=0))).tolist() == [1, 0]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_what_was_seen():
    logits = torch.tensor([[2.0, -2.0, 1.0, 3.0]])
    seen = sequence([0, 0], [1], repetition_penalty=2)
    assert sampler.penalise_repetition(logits, rows(seen)).tolist() == [[1.0, -4.0, 1.0, 3.0]]


def test_a_row_without_repetition_penalty_is_left_alone_beside_one_with_it():
    logits = torch.tensor([[2.0, 3.0]] * 2)
    both = rows(sequence([0]), sequence([0], repetition_penalty=2))
    assert sampler.penalise_repetition(logits, both).tolist() == [[2.0, 3.0], [1.0, 3.0]]


def test_frequency_counts_each_time_and_the_prompt_not_at_all():
    both = rows(sequence([3, 3], [1, 1, 2], frequency_penalty=0.25), sequence([0], [1]))
    logits = sampler.penalise_frequency(torch.zeros(2, 4), both)
    assert logits.tolist() == [[0.0, -0.5, -0.25, 0.0], [0.0] * 4]


def test_presence_counts_once_and_the_prompt_not_at_all():
    both = rows(sequence([3, 3], [1, 1, 2], presence_penalty=0.5), sequence([0], [1]))
    logits = sampler.penalise_presence(torch.zeros(2, 4), both)
    assert logits.tolist() == [[0.0, -0.5, -0.5, 0.0], [0.0] * 4]


def test_presence_and_frequency_add_up():
    seen = sequence([3], [1, 1, 2], presence_penalty=0.5, frequency_penalty=0.25)
    logits = sampler.penalise_presence(
        sampler.penalise_frequency(torch.zeros(1, 4), rows(seen)), rows(seen)
    )
    assert logits.tolist() == [[0.0, -1.0, -0.75, 0.0]]


def test_a_watermark_adds_delta_to_green_tokens_of_its_own_rows_only():
    greens = Greens("key")
    marked = sequence([7, 3], watermark=True)
    strong = sequence([7], [3], watermark=Watermark(gamma=0.25, delta=5))
    options = SamplingRows([marked, sequence(), strong], CPU, greens=greens)
    logits = sampler.prefer_green(torch.zeros(3, 1000), options)
    for row, gamma, delta in ((0, 0.5, 2.0), (2, 0.25, 5.0)):
        green = greens.are_green([3] * 1000, range(1000), gamma)
        assert logits[row].tolist() == [delta if each else 0.0 for each in green]
        assert 0.8 * gamma < green.mean() < 1.2 * gamma
    assert not logits[1].any()


def test_what_must_never_be_drawn_is_not_drawn_for_being_green():
    green = int(Greens("key").are_green([0] * 100, range(100), 0.5).argmax())
    options = sequence([0], temperature=0, watermark=True, banned_token_ids=[green])
    logits = torch.full((1, 100), -50.0)
    logits[0, green] = 0.0
    rows_ = SamplingRows([options], CPU, greens=Greens("key"))
    assert draw(logits, rows_).item() != green


def test_logit_bias_is_added():
    logits = sampler.add_bias(torch.zeros(1, 3), rows(sequence(logit_bias={1: 2.5, 2: -1})))
    assert logits.tolist() == [[0.0, 2.5, -1.0]]


def test_only_allowed_tokens_are_drawn_and_rows_without_the_option_are_free():
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
    options = rows(sequence(allowed_token_ids=[0, 2]), sequence())
    assert kept(sampler.allow(logits, options)) == [[0, 2], [0, 1, 2, 3]]


def test_banned_tokens_are_never_drawn():
    logits = torch.zeros(2, 3)
    assert kept(sampler.ban(logits, rows(sequence(banned_token_ids=[2]), sequence()))) == [
        [0, 1],
        [0, 1, 2],
    ]


def test_nothing_that_ends_the_sequence_is_drawn_before_min_tokens():
    ends = {"end_token_ids": frozenset({3}), "stop_token_ids": [1], "min_tokens": 2}
    young, old = sequence([0], [2], **ends), sequence([0], [2, 2], **ends)
    assert kept(sampler.hold_back_the_end(torch.zeros(2, 4), rows(young, old))) == [
        [0, 2],
        [0, 1, 2, 3],
    ]


def test_where_only_an_end_is_allowed_it_is_drawn_before_min_tokens_and_ends_nothing_yet():
    only = sequence(
        end_token_ids=frozenset({3}), stop_token_ids=[1], min_tokens=2, allowed_token_ids=[1, 3]
    )
    for _ in range(3):
        assert not only.is_finished
        [token_id] = draw(torch.zeros(1, 4), rows(only)).tolist()
        assert token_id in (1, 3)
        only.append(token_id)
    assert only.is_finished


@pytest.mark.parametrize("ops", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("option", ["temperature", "top_p", "min_p", "typical_p"])
def test_the_least_value_above_zero_means_as_little_as_any_that_is_small(ops, option):
    logits = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    least, small = (
        draw(logits.clone(), rows(*(sequence(seed=i, **{option: value}) for i in range(8))), ops)
        for value in (5e-324, 1e-30)
    )
    assert least.tolist() == small.tolist()


def test_penalties_and_bans_bear_on_greedy_rows_too():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert draw(logits, rows(sequence(temperature=0, banned_token_ids=[1]))).tolist() == [2]


def test_draws_follow_the_probabilities():
    logits = probs(0.5, 0.3, 0.2).repeat(5_000, 1)
    drawn = draw(logits, rows(*[sequence(seed=seed) for seed in range(5_000)]))
    shares = Counter(drawn.tolist())
    for token_id, expected in enumerate((0.5, 0.3, 0.2)):
        assert shares[token_id] / 5_000 == pytest.approx(expected, abs=0.025)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[NEVER, 0.0, NEVER, NEVER]]).repeat(1000, 1)
    assert set(draw(logits, rows(*[sequence(seed=s) for s in range(1000)])).tolist()) == {1}


def test_uniform_numbers_are_uniform_and_differ_with_seed_index_and_position():
    keys = np.arange(10_000)
    zeros = np.zeros_like(keys)
    for numbers in (
        uniforms(keys, zeros, zeros),
        uniforms(zeros, keys, zeros),
        uniforms(zeros, zeros, keys),
    ):
        assert numbers.min() >= 0 and numbers.max() < 1
        assert numbers.mean() == pytest.approx(0.5, abs=0.015)
        assert numbers.var() == pytest.approx(1 / 12, abs=0.006)
        assert len(np.unique(numbers)) == len(numbers)
        assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03


def test_uniform_numbers_never_change():
    """Seeds in logs and tests stay good: these three numbers are part of the interface."""
    numbers = uniforms(np.array([0, 1, -5]), np.array([0, 2, 0]), np.array([7, 7, 8]))
    assert numbers.tolist() == FIRST_NUMBERS


FIRST_NUMBERS = [0.8272724219886994, 0.05081380623834486, 0.37936092677297417]

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.integers(-1, 20),
        "top_p": st.sampled_from([0.1, 0.7, 1.0]),
        "min_p": st.sampled_from([0.0, 0.2]),
        "typical_p": st.sampled_from([0.3, 1.0]),
        "repetition_penalty": st.sampled_from([0.5, 1.0, 2.0]),
        "presence_penalty": st.sampled_from([-1.0, 0.0, 1.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
        "logit_bias": st.dictionaries(st.integers(0, 11), st.floats(-5, 5), max_size=3),
        "banned_token_ids": st.lists(st.integers(0, 5), max_size=3),
        "allowed_token_ids": st.one_of(st.none(), st.lists(st.integers(6, 11), min_size=1)),
        "min_tokens": st.integers(0, 4),
        "stop_token_ids": st.lists(st.integers(0, 5), max_size=2),
    },
)


@pytest.mark.parametrize("ops", BACKENDS.values(), ids=BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(OPTIONS, st.integers(0, 2**31)), min_size=2, max_size=5), st.integers(0, 999)
)
def test_companions_never_change_what_is_drawn(ops, requests, state):
    logits = torch.randn(len(requests), 12, generator=torch.Generator().manual_seed(state))
    sequences = [sequence([1, 2], [3, 3], seed=seed, **options) for options, seed in requests]
    together = draw(logits.clone(), rows(*sequences), ops).tolist()
    alone = [
        draw(logits[i : i + 1].clone(), rows(seq), ops).item() for i, seq in enumerate(sequences)
    ]
    assert together == alone
    for seq, token_id in zip(sequences, together, strict=True):
        params = seq.request.sampling
        assert token_id not in params.banned_token_ids
        assert params.allowed_token_ids is None or token_id in params.allowed_token_ids


def test_logprobs_are_the_models_own_with_rank_and_likeliest():
    logits = probs(0.5, 0.3, 0.2)
    [entry] = report(logits, torch.tensor([1]), [2], REFERENCE, CPU).entries()
    assert (entry.token_id, entry.rank) == (1, 2)
    assert entry.logprob == pytest.approx(math.log(0.3))
    assert [token_id for token_id, _ in entry.top] == [0, 1]
    assert entry.top[0][1] == pytest.approx(math.log(0.5))


def test_logprobs_can_be_asked_for_without_the_likeliest():
    [entry] = report(probs(0.5, 0.5), torch.tensor([0]), [0], REFERENCE, CPU).entries()
    assert entry.top == []


def test_a_row_with_a_grammar_draws_only_what_its_mask_allows():
    logits = torch.arange(80).float().reshape(2, 40)
    allowed = np.zeros((1, 64), dtype=bool)
    allowed[0, [3, 31, 33, 50]] = True  # 50 is beyond the vocabulary of 40
    masks = Masks([1], np.packbits(allowed, axis=1, bitorder="little"))
    follower = sequence(grammar=Grammar.regex("a"))
    constrained = SamplingRows([sequence(), follower], CPU, masks)
    assert kept(sampler.follow_grammar(logits, constrained)) == [list(range(40)), [3, 31, 33]]


def test_a_grammar_bears_on_greedy_rows_and_before_all_other_options():
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0]] * 2)
    masks = Masks([0, 1], np.array([[0b1100], [0b1100]], dtype=np.uint8))
    greedy = sequence(temperature=0, grammar=Grammar.regex("a"))
    narrow = sequence(top_k=1, seed=3, grammar=Grammar.regex("a"))
    constrained = SamplingRows([greedy, narrow], CPU, masks)
    assert sample(logits, constrained, REFERENCE).tolist() == [2, 2]
