"""What MII answers with."""

from typing import Literal

import msgspec

from penstock.vocabulary.results import Delta, RequestOutput


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one prompt, in text; the lengths are in tokens. As a string it is its text.

    While a text is being streamed, `generated_text` is what has come since the last response,
    `generated_length` counts all tokens until now, and `finish_reason` is "none" but in the last.
    """

    generated_text: str
    prompt_length: int
    generated_length: int
    finish_reason: Literal["stop", "length", "none"]

    def __str__(self) -> str:
        return self.generated_text

    __repr__ = __str__


def response_of(output: RequestOutput, *, full_text: bool) -> Response:
    """A finished generation, behind its prompt if `full_text`."""
    [completion] = output.outputs
    return Response(
        generated_text=(output.prompt or "" if full_text else "") + completion.text,
        prompt_length=len(output.prompt_token_ids),
        generated_length=len(completion.token_ids),
        finish_reason=_reason(completion.finish_reason),
    )


def streamed_response(delta: Delta, *, before: str, prompt_len: int, num_tokens: int) -> Response:
    """What a delta brings, behind what is to stand `before` it."""
    return Response(
        generated_text=before + delta.text,
        prompt_length=prompt_len,
        generated_length=num_tokens,
        finish_reason=_reason(None if delta.finish_reason is None else delta.finish_reason.value),
    )


def _reason(reason: str | None) -> Literal["stop", "length", "none"]:
    match reason:
        case "stop":
            return "stop"
        case "length":
            return "length"
        case _:
            return "none"
