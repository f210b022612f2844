"""From a grammar to a matcher, which knows what may come next in a text that follows it."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penstock.text.token_trie import token_trie
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar

_NUM_TRIED = 8
_MAX_WORDS = 400  # of an error message
# What following a grammar may cost per token, and hold in memory: about 20 ms, and 100 MB for all
# who follow the same one.
_MOST_LEXER_FUEL = _MOST_LEXER_STATES = 50_000

if TYPE_CHECKING:
    from llguidance import LLMatcher


@dataclass(frozen=True, kw_only=True)
class GrammarLimits:
    """What a grammar may cost before it is refused."""

    max_chars: int
    max_depth: int
    timeout_s: float
    memory_mib: int


class GrammarCompiler:
    """Compiles grammars for one vocabulary. `end_token_ids` end a text, the first by preference."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        vocab_size: int,
        end_token_ids: list[int],
        limits: GrammarLimits,
    ) -> None:
        self.end_token_ids = end_token_ids
        self._special_tokens = tokenizer.special_tokens
        self._limits = limits
        self._trie = token_trie(tokenizer, vocab_size=vocab_size, end_token_ids=end_token_ids)

    def translated(self, grammar: Grammar) -> str:
        """The grammar in llguidance's words. Raises `InvalidRequest` for one that is too large, or
        is none.
        """
        size = len(grammar.text) + len(grammar.after)
        if size > self._limits.max_chars:
            raise InvalidRequest(
                f"{grammar.param} has {size:,} characters; this server takes "
                f"{self._limits.max_chars:,}.",
                param=grammar.param,
            )
        from penstock.text.guidance import guidance  # here, since few requests bring a grammar

        return guidance(grammar, self._special_tokens, max_depth=self._limits.max_depth)

    def matcher(self, translated: str, param: str) -> "LLMatcher":
        """A matcher at the beginning of a text. Copies of it share what they learn."""
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(
            step_lexer_fuel=_MOST_LEXER_FUEL,
            max_lexer_states=_MOST_LEXER_STATES,
            verbose_errors=False,
        )
        matcher = LLMatcher(self._trie, translated, log_level=0, limits=limits)
        _check(matcher, param)
        return matcher

    def try_out(self, matcher: "LLMatcher", param: str) -> None:
        """Follow the grammar for some tokens at random: what nothing matches, or what costs too
        much, mostly shows at once.
        """
        matcher, chance = matcher.deep_copy(), random.Random(0)
        for _ in range(_NUM_TRIED):
            allowed = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            _check(matcher, param)
            if matcher.is_stopped():
                return
            choices = np.flatnonzero(np.unpackbits(allowed, bitorder="little"))
            matcher.consume_token(int(chance.choice(choices)))
            matcher.compute_ff_tokens()
            _check(matcher, param)


def failure(matcher: "LLMatcher", param: str) -> InvalidRequest | None:
    """Why the matcher has given up, in llguidance's own words; None if it has not."""
    if not matcher.is_error():
        return None
    words = matcher.get_error().partition("<backtrace>")[0].partition("<non-verbose/>")[0].strip()
    if words.startswith("NoExtension"):
        words = "There is no text that follows it, or none that this model's tokens can spell."
    return InvalidRequest(f"{param}: {words[:_MAX_WORDS]}", param=param)


def _check(matcher: "LLMatcher", param: str) -> None:
    error = failure(matcher, param)
    if error is not None:
        raise error
