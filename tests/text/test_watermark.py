"""Green tokens, and counting them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.text.watermark import Greens, detect
from penstock.vocabulary.errors import InvalidRequest

VOCAB_SIZE = 5000
EXPECTED = "110111100010011100101000010110100001000111000010"
gammas = st.floats(0.05, 0.95)
tokens = st.integers(0, VOCAB_SIZE - 1)


def random_text(seed: int, length: int = 400) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(VOCAB_SIZE) for _ in range(length)]


def green_text(key: str, length: int = 200, gamma: float = 0.5) -> list[int]:
    """A text of which every token is green behind the one before."""
    greens, rng, text = Greens(key), random.Random(0), [1]
    while len(text) < length:
        candidate = rng.randrange(VOCAB_SIZE)
        if greens.are_green(text[-1:], [candidate], gamma)[0]:
            text.append(candidate)
    return text


@given(st.text(min_size=1), tokens, gammas)
@settings(deadline=None)
def test_the_list_that_marks_is_the_one_that_is_looked_for(key, before, gamma):
    greens = Greens(key)
    marked = np.unpackbits(greens.of(before, gamma, VOCAB_SIZE), count=VOCAB_SIZE)
    looked_for = greens.are_green([before] * VOCAB_SIZE, range(VOCAB_SIZE), gamma)
    assert (marked == looked_for).all()


def test_the_lists_stay_the_same_so_that_old_texts_are_found_for_ever():
    """A change of these numbers loses the watermark of every text written before it."""
    green = Greens("a key").are_green([0] * 24 + [77] * 24, [*range(24)] * 2, 0.5)
    assert "".join(str(int(each)) for each in green) == EXPECTED


@given(tokens, gammas)
@settings(deadline=None)
def test_about_gamma_of_the_vocabulary_is_green(before, gamma):
    share = Greens("key").are_green([before] * VOCAB_SIZE, range(VOCAB_SIZE), gamma).mean()
    assert abs(share - gamma) < 6 * math.sqrt(gamma * (1 - gamma) / VOCAB_SIZE)


def test_another_key_or_another_token_before_gives_an_unrelated_list():
    def greens(key: str, before: int) -> np.ndarray:
        return Greens(key).are_green([before] * VOCAB_SIZE, range(VOCAB_SIZE), 0.5)

    for other in (greens("other", 7), greens("key", 8)):
        assert 0.45 < (greens("key", 7) == other).mean() < 0.55


def test_a_marked_text_is_found_with_its_key_only():
    text = green_text("key")
    report = detect(text, "key")
    assert report.is_watermarked and report.num_green == report.num_scored > 190
    assert report.z_score == pytest.approx(math.sqrt(report.num_scored))
    assert not detect(text, "another key").is_watermarked


def test_texts_without_a_watermark_score_as_chance_would_have_it():
    """Of 400 texts, the z-scores are a standard normal sample, and none says watermarked."""
    reports = [detect(random_text(seed), "key") for seed in range(400)]
    scores = np.array([report.z_score for report in reports])
    assert abs(scores.mean()) < 0.2 and 0.9 < scores.std() < 1.1
    assert not any(report.is_watermarked for report in reports)


def test_the_figures_are_those_of_the_paper():
    """z = (g - gamma T) / sqrt(T gamma (1 - gamma)), and the normal distribution's upper tail."""
    report = detect(random_text(1), "key", gamma=0.25)
    green, scored = report.num_green, report.num_scored
    expected = (green - 0.25 * scored) / math.sqrt(scored * 0.25 * 0.75)
    assert report.z_score == pytest.approx(expected)
    assert report.p_value == pytest.approx(0.5 * math.erfc(expected / math.sqrt(2)))
    assert report.is_watermarked == (expected > 4)


def test_a_pair_that_is_repeated_counts_once():
    """Else a text that says the same again and again would be marked, or not, by chance."""
    report = detect([5, 6] * 500, "key")
    assert (report.num_tokens, report.num_scored) == (1000, 2)
    assert not report.is_watermarked


@pytest.mark.parametrize(
    ("token_ids", "options", "words"),
    [
        ([], {}, "fewer than two tokens"),
        ([5], {}, "fewer than two tokens"),
        ([5, 6], {"gamma": 0}, "gamma must be above 0 and below 1"),
        ([5, 6], {"gamma": 1.0}, "gamma must be above 0 and below 1"),
        ([5, 6], {"key": ""}, "key is empty"),
    ],
)
def test_what_cannot_be_scored_is_refused(token_ids, options, words):
    with pytest.raises(InvalidRequest, match=words):
        detect(token_ids, **{"key": "key", **options})
