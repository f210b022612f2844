"""Log probabilities in the shapes of OpenAI's two endpoints, and of vLLM's prompt_logprobs."""

from collections.abc import Sequence

import msgspec

from penstock.text.detokenizer import Detokenizer
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.messages import TokenLogprobs

# JSON has no infinity; this is what OpenAI answers for the impossible.
LEAST_LOGPROB = -9999.0


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Of /v1/completions: four lists of one entry per token.

    The first token of an echoed prompt has nulls, since nothing predicts it.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TopLogprob(msgspec.Struct, frozen=True):
    """Of /v1/chat/completions: a token that might have stood there."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    """Of /v1/chat/completions: a token that stands there, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Of /v1/chat/completions: one entry per token."""

    content: list[TokenLogprob]
    refusal: None = None


class PromptLogprob(msgspec.Struct, frozen=True):
    """vLLM's report on one token that might stand at a place of the prompt."""

    logprob: float
    rank: int
    decoded_token: str


class TokenTexts(msgspec.Struct, frozen=True):
    """How tokens are written in answers: as text, or `as_ids`, in which no two look alike."""

    tokenizer: Tokenizer
    as_ids: bool = False

    def of(self, token_id: int) -> str:
        """One token."""
        return f"token_id:{token_id}" if self.as_ids else shown(token_id, self.tokenizer)


class TextOffsets:
    """Where in a text each of its tokens begins, counted in characters.

    `prompt_token_ids` are what the text follows, `offset` how long that is if it is part of it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_token_ids: Sequence[int] = (),
        offset: int = 0,
        skip_special_tokens: bool = True,
    ) -> None:
        self._offset = offset
        self._detokenizer = Detokenizer(
            tokenizer,
            prompt_token_ids=prompt_token_ids,
            skip_special_tokens=skip_special_tokens,
        )

    def of(self, token_id: int) -> int:
        """The offset of the next token."""
        begin = self._offset
        self._offset += len(self._detokenizer.add([token_id]))
        return begin


def shown(token_id: int, tokenizer: Tokenizer) -> str:
    """A token as text; a part of a character as OpenAI shows it, so that no two look alike."""
    spelled = tokenizer.token_bytes(token_id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def completion_logprobs(
    entries: Sequence[TokenLogprobs], num_top: int, texts: TokenTexts, offsets: TextOffsets
) -> CompletionLogprobs:
    """A completion's tokens, or a part of them, each among the `num_top` likeliest."""
    return CompletionLogprobs(
        tokens=[texts.of(entry.token_id) for entry in entries],
        token_logprobs=[_finite(entry.logprob) for entry in entries],
        top_logprobs=[
            {texts.of(id_): _finite(value) for id_, value in _with_chosen(entry, num_top)}
            for entry in entries
        ],
        text_offset=[offsets.of(entry.token_id) for entry in entries],
    )


def echoed_logprobs(
    token_ids: Sequence[int], entries: Sequence[TokenLogprobs], num_top: int, texts: TokenTexts
) -> CompletionLogprobs:
    """The tokens of an echoed prompt; `entries` belong to all but the first."""
    offsets = TextOffsets(texts.tokenizer)
    first = CompletionLogprobs(
        tokens=[texts.of(token_ids[0])],
        token_logprobs=[None],
        top_logprobs=[None],
        text_offset=[offsets.of(token_ids[0])],
    )
    return joined(first, completion_logprobs(entries, num_top, texts, offsets))


def joined(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    """Two stretches of the same text as one."""
    return CompletionLogprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=first.top_logprobs + second.top_logprobs,
        text_offset=first.text_offset + second.text_offset,
    )


def chat_logprobs(
    entries: Sequence[TokenLogprobs], num_top: int, texts: TokenTexts
) -> ChatLogprobs:
    """The tokens of an answer, or of a part of it, each with the `num_top` likeliest."""
    return ChatLogprobs(
        [
            TokenLogprob(
                token=texts.of(entry.token_id),
                logprob=_finite(entry.logprob),
                bytes=list(texts.tokenizer.token_bytes(entry.token_id)),
                top_logprobs=[
                    TopLogprob(
                        token=texts.of(id_),
                        logprob=_finite(logprob),
                        bytes=list(texts.tokenizer.token_bytes(id_)),
                    )
                    for id_, logprob in entry.top[:num_top]
                ],
            )
            for entry in entries
        ]
    )


def prompt_logprobs(
    entries: Sequence[TokenLogprobs | None], tokenizer: Tokenizer
) -> list[dict[int, PromptLogprob] | None]:
    """What vLLM answers when `prompt_logprobs` is asked for: token ids with rank and text."""
    return [None if entry is None else _ranked(entry, tokenizer) for entry in entries]


def _ranked(entry: TokenLogprobs, tokenizer: Tokenizer) -> dict[int, PromptLogprob]:
    ranks = {id_: rank for rank, (id_, _) in enumerate(entry.top, start=1)}
    ranks[entry.token_id] = entry.rank
    return {
        id_: PromptLogprob(_finite(logprob), ranks[id_], shown(id_, tokenizer))
        for id_, logprob in _with_chosen(entry, len(entry.top))
    }


def _with_chosen(entry: TokenLogprobs, num_top: int) -> list[tuple[int, float]]:
    top = entry.top[:num_top]
    if any(id_ == entry.token_id for id_, _ in top):
        return top
    return [*top, (entry.token_id, entry.logprob)]


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
