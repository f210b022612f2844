"""What TGI reports of tokens, in answers and in events."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from penstock.text.detokenizer import Detokenizer
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.messages import FinishReason, TokenLogprobs

EndReason = Literal["length", "eos_token", "stop_sequence"]


class PrefillToken(msgspec.Struct, frozen=True):
    """A token of the prompt. The first has no log probability, since nothing predicts it."""

    id: int
    text: str
    logprob: float | None


class GeneratedToken(msgspec.Struct, frozen=True):
    """A generated token, or one that might have stood in its place.

    `text` is empty for a token that leaves a character incomplete; the next one has it.
    """

    id: int
    text: str
    logprob: float | None
    special: bool


class BestOfSequence(msgspec.Struct, frozen=True, kw_only=True):
    """A completion that was not the likeliest of `best_of`. All are drawn with the same seed."""

    generated_text: str
    finish_reason: EndReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GeneratedToken]
    top_tokens: list[list[GeneratedToken]] | UnsetType = UNSET


class GenerateDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of a whole answer. `seed` is null where nothing was drawn."""

    finish_reason: EndReason
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GeneratedToken]
    best_of_sequences: list[BestOfSequence] | UnsetType = UNSET
    top_tokens: list[list[GeneratedToken]] | UnsetType = UNSET


class StreamDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Of a stream, in its last event."""

    finish_reason: EndReason
    generated_tokens: int
    seed: int | None
    input_length: int


class TokenReport:
    """The tokens of one completion as they come. Special ones show in their texts."""

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int], num_top: int) -> None:
        self._tokenizer = tokenizer
        self._num_top = num_top
        self._detokenizer = Detokenizer(
            tokenizer, prompt_token_ids=prompt_token_ids, skip_special_tokens=False
        )

    def token(self, entry: TokenLogprobs) -> GeneratedToken:
        """The next token."""
        text = self._detokenizer.add([entry.token_id])
        return self._reported(entry.token_id, text, entry.logprob)

    def top(self, entry: TokenLogprobs) -> list[GeneratedToken]:
        """The likeliest in the place of a token, best first."""
        return [
            self._reported(id_, self._tokenizer.token_text(id_), logprob)
            for id_, logprob in entry.top[: self._num_top]
        ]

    def _reported(self, token_id: int, text: str, logprob: float) -> GeneratedToken:
        is_special = token_id in self._tokenizer.special_token_ids
        return GeneratedToken(token_id, text, logprob, is_special)


def prefill_tokens(
    token_ids: Sequence[int], entries: Sequence[TokenLogprobs | None], tokenizer: Tokenizer
) -> list[PrefillToken]:
    """The prompt's tokens, where their log probabilities were asked for."""
    return [
        PrefillToken(id_, tokenizer.token_text(id_), None if entry is None else entry.logprob)
        for id_, entry in zip(token_ids, entries, strict=True)
    ]


def end_reason(reason: str | None, stop_reason: int | str | None) -> EndReason:
    """TGI's word for why a completion ended."""
    if reason == FinishReason.LENGTH.value:
        return "length"
    return "stop_sequence" if isinstance(stop_reason, str) else "eos_token"
