"""A vocabulary as llguidance sees it is the one that clients see."""

import numpy as np
import pytest
from llguidance import LLMatcher
from tokenizers import normalizers

from penstock.text.guidance import guidance
from penstock.text.token_trie import token_trie
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.grammar import Grammar
from tests.text.vocabularies import KINDS, NAMED, TOKENIZERS


@pytest.mark.parametrize("kind", list(TOKENIZERS))
def test_every_token_has_the_bytes_that_clients_are_shown(kind):
    tokenizer = TOKENIZERS[kind]
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[0])
    for token_id in range(1, tokenizer.vocab_size):
        is_text = not tokenizer.token_bytes(token_id).startswith(b"\xff")  # in no UTF-8 at all
        if is_text and token_id not in tokenizer.special_token_ids:
            assert trie.decode_bytes([token_id]) == tokenizer.token_bytes(token_id)


def test_ids_that_only_the_model_has_are_no_tokens_and_ids_beyond_the_model_are_not_there():
    tokenizer = TOKENIZERS["byte_level"]
    padded = token_trie(tokenizer, vocab_size=tokenizer.vocab_size + 3, end_token_ids=[1])
    assert padded.vocab_size == tokenizer.vocab_size + 3
    anything = LLMatcher(padded, LLMatcher.grammar_from_regex("(?s:.*)"))
    bits = np.unpackbits(np.frombuffer(anything.compute_bitmask(), np.uint8), bitorder="little")
    assert bits[tokenizer.encode_within("a")].all() and not bits[tokenizer.vocab_size :].any()
    assert token_trie(tokenizer, vocab_size=300, end_token_ids=[1]).vocab_size == 300


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_forced_text_is_split_as_the_tokenizer_splits_it(kind):
    tokenizer = TOKENIZERS[kind]
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[1])
    text = " the lazy dog. é"
    assert trie.tokenize_str(text) == tokenizer.encode_within(text)


def test_forced_text_that_the_tokenizer_would_change_is_split_greedily():
    tokenizer = TOKENIZERS["wordpiece"]
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[0])
    ids = trie.tokenize_str(" hello world")
    assert tokenizer.spell(ids, at_start=False) == b" hello world"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_text_that_normalization_would_change_is_forced_as_it_is(kind):
    """The key and the letters of this choice are decomposed; NFC would write them otherwise."""
    library = KINDS[kind]()
    given = library.normalizer
    library.normalizer = normalizers.Sequence([normalizers.NFC(), *([given] if given else [])])
    tokenizer = Tokenizer(library, special_tokens=NAMED)
    text = "cafe\u0301 the e\u0301te\u0301"
    assert tokenizer.decode(tokenizer.encode(text)) != text
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[2])
    matcher = LLMatcher(trie, guidance(Grammar.choice([text]), {}, max_depth=9))
    written: list[int] = []
    while not matcher.is_stopped():
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        written.append(int(np.flatnonzero(bits)[0]))
        assert matcher.consume_token(written[-1]), "what was allowed is not accepted"
    assert tokenizer.spell(written, at_start=False) == text.encode()


def test_a_token_that_ends_the_text_is_never_a_part_of_it():
    tokenizer = TOKENIZERS["byte_level"]
    full_stop = tokenizer.encode_within(".")[0]
    trie = token_trie(tokenizer, vocab_size=tokenizer.vocab_size, end_token_ids=[1, full_stop])
    assert trie.is_special_token(full_stop) and trie.eos_tokens == [1, full_stop]


def test_tokens_that_were_added_to_the_tokenizer_and_not_to_the_model_are_never_forced():
    library = KINDS["byte_level"]()
    size = library.get_vocab_size()
    library.add_tokens(["yellow"])
    library.add_special_tokens(["<pad>"])
    tokenizer = Tokenizer(library, special_tokens=NAMED)
    trie = token_trie(tokenizer, vocab_size=size, end_token_ids=[1])
    ids = trie.tokenize_str("a yellow dog")
    assert max(ids) < size and tokenizer.spell(ids, at_start=False) == b"a yellow dog"
