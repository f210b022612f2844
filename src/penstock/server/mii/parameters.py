"""MII's options of a generation, by its names and with its defaults."""

from typing import Annotated

import msgspec
from msgspec import Meta

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams


class GenerateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to continue prompts. The lesser of `max_length` and `max_new_tokens` ends a text."""

    max_length: Annotated[
        int, Meta(ge=1, description="Most tokens of prompt and continuation together.")
    ] = 1024
    max_new_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most tokens of the continuation."),
    ] = None
    min_new_tokens: Annotated[
        int, Meta(ge=0, description="The text does not end before this many tokens.")
    ] = 0
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False
    ignore_eos: Annotated[
        bool, Meta(description="Go on past the model's own end-of-text tokens.")
    ] = False
    return_full_text: Annotated[bool, Meta(description="Begin generated_text with the prompt.")] = (
        False
    )
    do_sample: Annotated[bool, Meta(description="Without, the likeliest token is taken.")] = True
    top_p: Annotated[
        float,
        Meta(gt=0, le=1, description="Keep the likeliest tokens whose probabilities sum to this."),
    ] = 0.9
    top_k: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Keep only the k likeliest tokens; null keeps all."),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Divides the logits; null is 1."),
    ] = None
    stop: Annotated[
        list[str] | str,
        Meta(description="The text ends before any of these, however many tokens they take."),
    ] = []

    def sampling(self, prompt_len: int, max_model_len: int) -> SamplingParams:
        """These options for a prompt of so many tokens, cut to the model's context.

        Raises `InvalidRequest` if nothing can be generated within `max_length`.
        """
        max_length = min(self.max_length, max_model_len)
        room = max_length - prompt_len
        if room < 1:
            raise InvalidRequest(
                f"The prompt has {prompt_len} tokens, and max_length is {max_length}.",
                param="max_length",
                remedy="Shorten the prompt, or raise max_length as far as the model allows.",
            )
        max_tokens = min(self.max_new_tokens or room, room)
        if self.min_new_tokens > max_tokens:
            raise InvalidRequest(
                f"min_new_tokens is {self.min_new_tokens}, but at most {max_tokens} may follow a "
                f"prompt of {prompt_len} tokens.",
                param="min_new_tokens",
            )
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=self.min_new_tokens,
            ignore_eos=self.ignore_eos,
            temperature=(self.temperature or 1.0) if self.do_sample else 0.0,
            top_p=self.top_p,
            top_k=self.top_k or 0,
            stop=self.stop or None,
        )
