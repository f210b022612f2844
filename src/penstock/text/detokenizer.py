"""Tokens to text as they arrive."""

import codecs
from collections.abc import Sequence

from penstock.text.tokenizer import Tokenizer

_LONGEST_CHARACTER = 4  # bytes of UTF-8
_MOST_LOOKED_AT = 64
"""Tokens at either end of a prompt: one may have any number of special ones, which show nothing."""


class Detokenizer:
    """One completion's text: in sum, what `Tokenizer.decode` gives for all the tokens, less an
    incomplete character at the end.

    Each token is spelled once, and at most three bytes wait for their character to be completed,
    so the cost per token does not depend on what came before. `prompt_token_ids` are what the
    completion follows: its first word then keeps its leading space, and a character begun there is
    completed here. `shown_token_ids` are special tokens to leave in the text even if it has no
    others.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_token_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        shown_token_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        skipped = tokenizer.special_token_ids if skip_special_tokens else frozenset()
        self._hidden = skipped - shown_token_ids
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters.decode(self._end_of(prompt_token_ids))
        ends = (*prompt_token_ids[:_MOST_LOOKED_AT], *prompt_token_ids[-_MOST_LOOKED_AT:])
        self._at_start = not any(self._spell([id_]) for id_ in ends)

    def add(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens completed; empty while a character is incomplete."""
        spelled = self._spell(token_ids, at_start=self._at_start)
        if self._at_start:
            self._at_start = not self._spell(token_ids)
        return self._characters.decode(spelled)

    def finish(self) -> str:
        """The end of the text: empty, since only an incomplete character is ever withheld."""
        self._characters.reset()
        return ""

    def _spell(self, token_ids: Sequence[int], *, at_start: bool = False) -> bytes:
        return self._tokenizer.spell(token_ids, at_start=at_start, hidden=self._hidden)

    def _end_of(self, token_ids: Sequence[int]) -> bytes:
        """As many of the last bytes as can still matter to the next character."""
        end = b""
        for id_ in reversed(token_ids[-_MOST_LOOKED_AT:]):
            end = self._spell([id_]) + end
            if len(end) >= _LONGEST_CHARACTER:
                break
        return end
