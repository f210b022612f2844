from collections.abc import Iterable
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.text.detokenizer import Detokenizer
from penstock.text.tokenizer import Tokenizer
from tests.text.chat_models import CHATML
from tests.text.vocabularies import LIBRARIES, TOKENIZERS

KINDS = sorted(TOKENIZERS)


@st.composite
def completions(draw: st.DrawFn) -> tuple[str, list[list[int]]]:
    """A kind of vocabulary, and any of its tokens in steps of any size; some ids have none."""
    kind = draw(st.sampled_from(KINDS))
    ids = st.integers(0, TOKENIZERS[kind].vocab_size + 2)
    return kind, draw(st.lists(st.lists(ids, max_size=4), max_size=12))


def flat(steps: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(steps))


def streamed(tokenizer: Tokenizer, steps: Iterable[list[int]], **options: object) -> str:
    detokenizer = Detokenizer(tokenizer, **options)
    return "".join(map(detokenizer.add, steps)) + detokenizer.finish()


def is_all_but_the_end(text: str, whole: str) -> bool:
    """An incomplete end is one U+FFFD of the whole; half a surrogate waits as if it were one, but
    is two."""
    return whole in (text, text + "\ufffd", text + "\ufffd\ufffd")


def pieces(tokenizer: Tokenizer, tokens: list[str], prompt: list[str] | None = None) -> list[str]:
    """What each token shows when it arrives alone."""
    ids = LIBRARIES["byte_fallback"].token_to_id
    detokenizer = Detokenizer(tokenizer, prompt_token_ids=[ids(token) for token in prompt or []])
    return [detokenizer.add([ids(token)]) for token in tokens]


@given(completions(), st.booleans())
def test_the_stream_says_what_decoding_the_whole_says_up_to_an_incomplete_end(completion, skip):
    kind, steps = completion
    tokenizer = TOKENIZERS[kind]
    whole = tokenizer.decode(flat(steps), skip_special_tokens=skip)
    text = streamed(tokenizer, steps, skip_special_tokens=skip)
    assert is_all_but_the_end(text, whole)


@given(completions())
def test_everything_shown_so_far_is_how_the_whole_text_begins(completion):
    kind, steps = completion
    whole = TOKENIZERS[kind].decode(flat(steps))
    detokenizer, shown = Detokenizer(TOKENIZERS[kind]), ""
    for step in steps:
        shown += detokenizer.add(step)
        assert whole.startswith(shown)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(text=st.text(max_size=30))
def test_any_text_comes_back_token_by_token(kind, text):
    ids = TOKENIZERS[kind].encode(text, add_special_tokens=False)
    assert streamed(TOKENIZERS[kind], [[id_] for id_ in ids]) == LIBRARIES[kind].decode(ids)


@given(text=st.text(max_size=30))
def test_no_half_character_of_a_text_is_ever_shown(text):
    text = text.replace("\ufffd", "")
    tokenizer = TOKENIZERS["byte_level"]
    detokenizer = Detokenizer(tokenizer)
    for id_ in tokenizer.encode(text):
        assert "\ufffd" not in detokenizer.add([id_])


def test_a_character_split_over_tokens_appears_with_its_last_byte():
    tokenizer = TOKENIZERS["byte_fallback"]
    tokens = ["▁a", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "b"]
    assert pieces(tokenizer, tokens) == ["a", "", "", "", "😀", "b"]


def test_a_special_token_within_a_character_does_not_break_it():
    tokenizer = TOKENIZERS["byte_fallback"]
    assert pieces(tokenizer, ["<0xC3>", "</s>", "<0xA9>"]) == ["", "", "é"]


def test_the_first_word_loses_its_space_and_after_a_prompt_it_keeps_it():
    tokenizer = TOKENIZERS["byte_fallback"]
    assert pieces(tokenizer, ["▁the", "▁the"]) == ["the", " the"]
    assert pieces(tokenizer, ["▁the", "▁the"], prompt=["<s>", "▁a"]) == [" the", " the"]


def test_a_prompt_of_special_tokens_alone_is_still_the_start_of_the_text():
    assert pieces(TOKENIZERS["byte_fallback"], ["▁the"], prompt=["<s>"]) == ["the"]


def test_only_one_space_is_lost_at_the_start():
    assert pieces(TOKENIZERS["byte_fallback"], ["▁", "▁the"]) == ["", " the"]
    assert pieces(TOKENIZERS["byte_fallback"], ["<0x20>", "▁the"]) == ["", " the"]


@given(completions(), st.integers(0, 12))
def test_a_prompt_and_its_completion_make_the_text_of_both(completion, num_prompt_steps):
    kind, steps = completion
    tokenizer = TOKENIZERS[kind]
    prompt = flat(steps[:num_prompt_steps])
    rest = streamed(tokenizer, steps[num_prompt_steps:], prompt_token_ids=prompt)
    begun = streamed(tokenizer, [prompt])
    whole = tokenizer.decode(flat(steps))
    assert is_all_but_the_end(begun + rest, whole)


def test_a_character_begun_in_the_prompt_is_completed_in_the_completion():
    shown = pieces(TOKENIZERS["byte_fallback"], ["<0x98>", "<0x80>"], prompt=["<0xF0>", "<0x9F>"])
    assert shown == ["", "😀"]


def test_invalid_bytes_in_the_middle_are_shown_as_such_and_cost_nothing_around_them():
    shown = pieces(TOKENIZERS["byte_fallback"], ["▁a", "<0x41>", "<0xE5>", "b", "<0xFF>", "a"])
    assert shown == ["a", "A", "", "\ufffdb", "\ufffd", "a"]


def test_an_incomplete_character_at_the_end_is_dropped():
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer.encode("ab😁", add_special_tokens=False)[:-1]
    assert streamed(tokenizer, [ids]) == "ab"


def test_special_tokens_show_when_asked_for():
    ids = [LIBRARIES["byte_level"].token_to_id(token) for token in ("<s>", "a", "</s>")]
    assert streamed(TOKENIZERS["byte_level"], [ids], skip_special_tokens=False) == "<s>a</s>"
    assert streamed(TOKENIZERS["byte_level"], [ids]) == "a"


def test_single_special_tokens_can_be_shown():
    ids = [LIBRARIES["byte_level"].token_to_id(token) for token in ("<s>", "a", "</s>")]
    shown = frozenset(ids[2:])
    assert streamed(TOKENIZERS["byte_level"], [ids], shown_token_ids=shown) == "a</s>"


@pytest.mark.parametrize("token", ["<0xFF>", "▁a", "</s>"])
def test_however_long_the_text_each_token_is_spelled_once(token, monkeypatch):
    tokenizer = TOKENIZERS["byte_fallback"]
    spell, spelled = tokenizer.spell, 0

    def counting(token_ids, **options):
        nonlocal spelled
        spelled += len(token_ids)
        return spell(token_ids, **options)

    monkeypatch.setattr(tokenizer, "spell", counting)
    id_ = LIBRARIES["byte_fallback"].token_to_id(token)
    detokenizer = Detokenizer(tokenizer)
    for _ in range(1000):
        detokenizer.add([id_])
    assert spelled <= 2 * 1000  # twice only while the text has not begun


def test_a_prompt_of_nothing_but_special_tokens_costs_no_more_than_another(monkeypatch):
    tokenizer = CHATML.tokenizer()
    spelled = []
    spell = tokenizer.spell

    def counted(token_ids, **options):
        spelled.append(token_ids)
        return spell(token_ids, **options)

    monkeypatch.setattr(tokenizer, "spell", counted)
    special = min(tokenizer.special_token_ids)
    detokenizer = Detokenizer(tokenizer, prompt_token_ids=[special] * 100_000)
    assert len(spelled) < 1000
    assert detokenizer.add(tokenizer.encode("the fox")) == "the fox"
