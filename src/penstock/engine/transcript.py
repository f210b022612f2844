"""From a request's outputs to its text: a detokenizer and stop strings each completion."""

from penstock.text.detokenizer import Detokenizer
from penstock.text.stop_strings import StopStrings
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.messages import FinishReason, Output, Request, TokenLogprobs
from penstock.vocabulary.results import CompletionOutput, Delta, RequestOutput


class _Completion:
    """One completion's text so far, and whether it has ended."""

    def __init__(
        self, request: Request, tokenizer: Tokenizer, shown_token_ids: frozenset[int]
    ) -> None:
        params = request.sampling
        self.detokenizer = Detokenizer(
            tokenizer,
            prompt_token_ids=request.prompt_token_ids,
            skip_special_tokens=params.skip_special_tokens,
            shown_token_ids=shown_token_ids,
        )
        self.stop_strings = StopStrings(
            params.stop_strings, include_in_output=params.include_stop_str_in_output
        )
        self.has_ended = False
        self._num_to_keep = params.min_tokens  # tokens, whose text ends nothing
        self._end_marks: frozenset[int] = frozenset()
        if not (params.skip_special_tokens or params.include_stop_str_in_output):
            self._end_marks = tokenizer.special_token_ids - shown_token_ids

    def add(self, output: Output) -> tuple[str, str | None]:
        """(text to show, the stop string that ended it or None)."""
        text, stop = self._read(self._without_end_mark(output))
        if stop is None and output.finish_reason is not None:
            last, stop = self.stop_strings.add(self.detokenizer.finish())
            text += last if stop is not None else last + self.stop_strings.finish()
        self.has_ended = stop is not None or output.finish_reason is not None
        return text, stop

    def _without_end_mark(self, output: Output) -> list[int]:
        """Its tokens, but for a special one that ends the text: as a stop string, it is no part."""
        token_ids, has_ended = output.token_ids, output.finish_reason is FinishReason.STOP
        is_marked = has_ended and token_ids and token_ids[-1] in self._end_marks
        return token_ids[:-1] if is_marked else token_ids

    def _read(self, token_ids: list[int]) -> tuple[str, str | None]:
        if not self._num_to_keep:
            return self.stop_strings.add(self.detokenizer.add(token_ids))
        kept, others = token_ids[: self._num_to_keep], token_ids[self._num_to_keep :]
        self._num_to_keep -= len(kept)
        text, _ = self.stop_strings.add(self.detokenizer.add(kept), may_end=False)
        rest, stop = self.stop_strings.add(self.detokenizer.add(others))
        return text + rest, stop


class Transcript:
    """Turns the outputs of one request into deltas of text.

    `shown_token_ids` are special tokens that stay in the text, whatever the request says of others.
    """

    def __init__(
        self,
        request: Request,
        tokenizer: Tokenizer,
        *,
        shown_token_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.request = request
        self._completions = [
            _Completion(request, tokenizer, shown_token_ids) for _ in range(request.sampling.n)
        ]

    def add(self, output: Output) -> Delta | None:
        """What this output adds, or None if its completion has ended already.

        When a stop string ends the completion before the engine knows, the delta's `stop_reason` is
        that string: the caller must then cancel the completion in the engine.
        """
        completion = self._completions[output.index]
        if completion.has_ended:
            return None
        text, stop = completion.add(output)
        return Delta(
            index=output.index,
            text=text,
            token_ids=output.token_ids,
            logprobs=output.logprobs,
            prompt_logprobs=output.prompt_logprobs,
            finish_reason=FinishReason.STOP if stop is not None else output.finish_reason,
            stop_reason=stop if stop is not None else output.stop_token_id,
            num_cached=output.num_cached,
            admitted_at=output.admitted_at,
            embedding=output.embedding,
        )

    @property
    def has_ended(self) -> bool:
        return all(completion.has_ended for completion in self._completions)


def empty_result(request: Request, prompt: str | None) -> RequestOutput:
    """A result that deltas can be added to."""
    params = request.sampling
    nothing: list[TokenLogprobs | None] = [None]
    return RequestOutput(
        request_id=request.request_id,
        prompt=prompt,
        prompt_token_ids=request.prompt_token_ids,
        outputs=[
            CompletionOutput(index=index, logprobs=None if params.logprobs is None else [])
            for index in range(params.n)
        ],
        prompt_logprobs=None if params.prompt_logprobs is None else nothing,
    )
