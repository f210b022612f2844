"""A vocabulary as llguidance walks it: a tree of the bytes that tokens spell."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer


def token_trie(
    tokenizer: Tokenizer, *, vocab_size: int, end_token_ids: Sequence[int]
) -> "LLTokenizer":
    """The tree of a model's `vocab_size` token ids.

    The bytes are those that clients will see (`Tokenizer.token_bytes`), so what is allowed is
    decided by what is shown, whichever way the vocabulary spells. `end_token_ids` end a text, the
    first of them by preference.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    words = _Words(tokenizer, vocab_size, end_token_ids)
    words.trie = LLTokenizer(TokenizerWrapper(words), eos_token=list(end_token_ids))
    words.tokens.clear()  # the tree has its own copy
    return words.trie


class _Words:
    """What llguidance asks of a tokenizer, under the names it asks for."""

    trie: "LLTokenizer"

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_token_ids: Sequence[int]) -> None:
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in range(vocab_size)]
        self.eos_token_id = end_token_ids[0]
        self.bos_token_id = None
        # a text may end there, but the token is never part of one, whatever it spells
        special = {*tokenizer.special_token_ids, *end_token_ids}
        self.special_token_ids = sorted(id_ for id_ in special if id_ < vocab_size)
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size

    def __call__(self, text: str) -> list[int]:
        """Split forced text as the model knows it; a text that the vocabulary cannot spell that
        way, or only with tokens that were not added to the model too, is split greedily.
        """
        if not isinstance(text, str):
            raise TypeError("only text, not bytes: asked so by TokenizerWrapper")
        token_ids = self._tokenizer.encode_within(text)
        if token_ids is None or max(token_ids, default=0) >= self._vocab_size:
            return self.trie.greedy_tokenize(text)
        return token_ids
