"""Text in the middle of another is split as the model knows it there, and spells what it says."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.text.vocabularies import TOKENIZERS


def test_no_space_is_put_before_a_word():
    assert TOKENIZERS["byte_fallback"].encode("the")[0] == 293  # "▁the"
    assert TOKENIZERS["byte_fallback"].encode_within("the") == [292]
    assert TOKENIZERS["byte_fallback"].encode_within(" the") == [293]
    metaspace = TOKENIZERS["metaspace"]
    assert metaspace.spell(metaspace.encode_within("a"), at_start=False) == b"a"


def test_words_are_split_as_in_a_longer_text():
    tokenizer = TOKENIZERS["byte_level"]
    whole = tokenizer.encode("say the quick fox", add_special_tokens=False)
    part = tokenizer.encode_within(" quick fox")
    assert whole[-len(part) :] == part


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_what_looks_like_a_special_token_is_text(kind):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode_within("</s>")
    assert not set(ids) & tokenizer.special_token_ids
    assert tokenizer.spell(ids, at_start=False) == b"</s>"


def test_what_a_vocabulary_cannot_spell_is_no_text_of_it():
    assert TOKENIZERS["metaspace"].encode_within("Q") is None
    assert TOKENIZERS["wordpiece"].encode_within("hello") is None  # " hello" is all it can say


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(text=st.text(max_size=30))
def test_any_text_is_spelled_exactly(kind, text):
    ids = TOKENIZERS[kind].encode_within(text)
    assert TOKENIZERS[kind].spell(ids, at_start=False) == text.encode()
