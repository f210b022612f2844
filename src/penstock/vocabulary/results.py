"""What a caller gets back: text. `Delta`s as they arrive, or a whole `RequestOutput` at the end."""

import msgspec

from penstock.vocabulary.messages import FinishReason, TokenLogprobs


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What one step added to the text of one completion (`index` below the request's n).

    `text` may be empty while characters are incomplete or might begin a stop string; the tokens are
    reported all the same. `stop_reason` is the stop string or stop token id that ended the
    completion, or None for the model's own end of text. `prompt_logprobs`, `num_cached`,
    `admitted_at` and `embedding` are as in `Output`.
    """

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] = []
    prompt_logprobs: list[TokenLogprobs] = []
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached: int | None = None
    admitted_at: float | None = None
    embedding: list[float] = []


class CompletionOutput(msgspec.Struct, kw_only=True):
    """One completion. `logprobs` has one entry per token, or is None when none were asked for."""

    index: int
    text: str = ""
    token_ids: list[int] = msgspec.field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def mean_logprob(self) -> float:
        """How likely its tokens were on average, for ranking; 0 where none were asked for."""
        entries = self.logprobs or ()
        return sum(entry.logprob for entry in entries) / max(1, len(entries))


class RequestOutput(msgspec.Struct, kw_only=True):
    """Everything that came of one prompt, so far or in the end.

    `prompt_logprobs[i]` belongs to prompt token i; the first is None, since nothing predicts it.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        return all(output.finish_reason is not None for output in self.outputs)

    def add(self, delta: Delta) -> None:
        """Take in what one step brought."""
        output = self.outputs[delta.index]
        output.text += delta.text
        output.token_ids += delta.token_ids
        if output.logprobs is not None:
            output.logprobs += delta.logprobs
        if self.prompt_logprobs is not None and delta.index == 0:
            self.prompt_logprobs += delta.prompt_logprobs
        if delta.index == 0 and delta.num_cached is not None:
            self.num_cached_tokens = delta.num_cached
        if delta.finish_reason is not None:
            output.finish_reason = delta.finish_reason.value
            output.stop_reason = delta.stop_reason
