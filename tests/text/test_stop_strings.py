import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.text import stop_strings
from penstock.text.stop_strings import StopStrings

TEXTS = st.text(alphabet="ab", max_size=30)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), max_size=4)


def first_stop(text: str, stop: list[str]) -> tuple[int, str] | None:
    """Where a reader looking after every character would stop, and for what."""
    for end in range(len(text) + 1):
        complete = [string for string in stop if text[:end].endswith(string)]
        if complete:
            return end, max(complete, key=len)
    return None


def may_become_a_stop(text: str, stop: list[str]) -> int:
    """Length of the longest suffix that is the beginning of a stop string."""
    return max(
        (n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])),
        default=0,
    )


def streamed(text: str, cuts: list[int], stop: list[str], **options) -> tuple[str, str | None]:
    stops, shown = StopStrings(stop, **options), ""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(places):
        piece, found = stops.add(text[start:end])
        shown += piece
        if found is not None:
            return shown, found
    return shown + stops.finish(), None


@given(TEXTS, STOPS, st.lists(st.integers(0, 30), max_size=8))
def test_any_cutting_of_the_text_stops_where_the_whole_text_does(text, stop, cuts):
    expected = first_stop(text, stop)
    if expected is None:
        assert streamed(text, cuts, stop) == (text, None)
    else:
        end, string = expected
        assert streamed(text, cuts, stop) == (text[: end - len(string)], string)
        assert streamed(text, cuts, stop, include_in_output=True) == (text[:end], string)


@given(TEXTS, TEXTS, STOPS, st.booleans())
def test_a_text_that_may_not_end_yet_ends_at_what_becomes_complete_later(kept, rest, stop, whole):
    text, stops = kept + rest, StopStrings(stop, include_in_output=whole)
    shown, found = stops.add(kept, may_end=False)
    assert found is None
    more, found = stops.add(rest)
    ends = range(len(kept) + 1, len(text) + 1)
    end = next((end for end in ends if text[:end].endswith(tuple(stop))), None)
    if end is None:
        assert (shown + more + stops.finish(), found) == (text, None)
    else:
        string = max((each for each in stop if text[:end].endswith(each)), key=len)
        expected = text[:end] if whole else text[: end - len(string)]
        assert (shown + more, found) == (expected, string)


@given(TEXTS, STOPS)
def test_exactly_what_may_yet_become_a_stop_string_is_withheld(text, stop):
    stops, shown = StopStrings(stop), ""
    for end in range(1, len(text) + 1):
        piece, found = stops.add(text[end - 1])
        if found is not None:
            break
        shown += piece
        assert shown == text[: end - may_become_a_stop(text[:end], stop)]


def test_a_stop_string_split_over_three_tokens_is_found():
    stops = StopStrings(["\n\nUser:"])
    assert stops.add("Yes.\n") == ("Yes.", None)
    assert stops.add("\nUs") == ("", None)
    assert stops.add("er: and more") == ("", "\n\nUser:")


def test_what_only_looked_like_a_stop_string_is_shown_once_it_cannot_be_one():
    stops = StopStrings(["END"])
    assert stops.add("the EN") == ("the ", None)
    assert stops.add("EMY") == ("ENEMY", None)


def test_what_is_withheld_when_the_text_is_over_is_shown_at_the_end():
    stops = StopStrings(["END"])
    assert stops.add("the EN") == ("the ", None)
    assert stops.finish() == "EN"


def test_the_stop_string_that_ends_first_wins_even_if_another_began_before_it():
    assert StopStrings(["abcd", "bc"]).add("abcd") == ("a", "bc")


def test_of_two_that_end_together_the_longer_wins_whatever_their_order():
    assert StopStrings(["b", "ab"]).add("xab") == ("x", "ab")
    assert StopStrings(["ab", "b"]).add("xab") == ("x", "ab")


def test_a_stop_string_that_begins_another_wins_as_soon_as_it_is_complete():
    assert StopStrings(["abc", "ab"]).add("abc") == ("", "ab")


def test_with_the_stop_string_in_the_output_nothing_is_withheld():
    stops = StopStrings(["END"], include_in_output=True)
    assert stops.add("the EN") == ("the EN", None)
    assert stops.add("D. More") == ("D", "END")


def test_nothing_added_after_the_stop_belongs_to_the_text():
    stops = StopStrings(["."])
    assert stops.add("one. two") == ("one", ".")
    assert stops.add(" three.") == ("", ".")
    assert stops.finish() == ""


def test_without_stop_strings_everything_is_shown_at_once():
    stops = StopStrings([])
    assert stops.add("anything") == ("anything", None)
    assert stops.finish() == ""


@pytest.mark.parametrize("chunk", [1, 5, 100_000])
def test_a_text_that_keeps_almost_matching_costs_no_more_than_its_length(chunk):
    stops = StopStrings(["a" * 1000 + "b", "a" * 999 + "c"])
    start, text = time.process_time(), "a" * 100_000
    shown = sum(len(stops.add(text[i : i + chunk])[0]) for i in range(0, len(text), chunk))
    assert shown == len(text) - 1000
    assert time.process_time() - start < 2  # a search that starts over takes minutes


def test_what_a_string_is_like_is_found_out_once_for_all_completions():
    string = "ab" * 512
    before = stop_strings._borders.cache_info().misses
    searches = [StopStrings([string]) for _ in range(128)]
    assert stop_strings._borders.cache_info().misses <= before + 1
    assert {each.add(f"x{string}y") for each in searches} == {("x", string)}


def test_a_stop_string_that_comes_too_early_is_text_like_any_other():
    stops = StopStrings(["ab"])
    assert stops.add("xabababa", may_end=False) == ("xababab", None)
    assert stops.add("b and ab") == ("", "ab")
    overlapping = StopStrings(["aa"])
    assert overlapping.add("aaa", may_end=False) == ("aa", None)
    assert overlapping.finish() == "a"
