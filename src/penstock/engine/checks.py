"""Whether a request can be answered by the model at all. Both doors, `LLM` and `AsyncLLM`, ask
first.
"""

from penstock.engine.settings import Resolved
from penstock.vocabulary.errors import ContextTooLong, InvalidRequest
from penstock.vocabulary.messages import Refusal
from penstock.vocabulary.sampling_params import SamplingParams


def check_request(
    prompt_token_ids: list[int],
    params: SamplingParams,
    resolved: Resolved,
    *,
    can_watermark: bool,
    embeds: bool = False,
) -> None:
    """Raise `InvalidRequest` for a prompt that is empty, too long, or holds ids the model does not
    have, and for a watermark without a key. If it `embeds`, nothing follows the prompt.
    """
    vocab_size, max_model_len = resolved.vocab_size, resolved.max_model_len
    if not prompt_token_ids:
        raise InvalidRequest(
            "The prompt is empty: there is nothing to continue.",
            param="prompt",
            remedy="Give at least one token.",
        )
    max_tokens = 0 if embeds else params.max_tokens
    if len(prompt_token_ids) + (1 if max_tokens is None else max_tokens) > max_model_len:
        raise ContextTooLong(len(prompt_token_ids), max_tokens, max_model_len)
    if params.watermark and not can_watermark:
        raise InvalidRequest(
            "Texts cannot be watermarked here: there is no watermark key.",
            param="watermark",
            remedy="Whoever runs the engine must set watermark_key.",
        )
    _check_ids("prompt", prompt_token_ids, vocab_size)
    _check_ids("stop_token_ids", params.stop_token_ids, vocab_size)
    _check_ids("banned_token_ids", params.banned_token_ids, vocab_size)
    _check_ids("allowed_token_ids", params.allowed_token_ids or [], vocab_size)
    _check_ids("logit_bias", list(params.logit_bias), vocab_size)
    if len(set(params.banned_token_ids)) >= vocab_size:
        raise InvalidRequest("banned_token_ids leaves no token to draw.", param="banned_token_ids")


def refused(refusal: Refusal) -> InvalidRequest:
    """What the engine said of a request, as the error it is to whoever made it."""
    return InvalidRequest(refusal.message, param=refusal.param, remedy=refusal.remedy)


def _check_ids(param: str, token_ids: list[int], vocab_size: int) -> None:
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
        wrong = next(token_id for token_id in token_ids if not 0 <= token_id < vocab_size)
        raise InvalidRequest(
            f"{param} holds token id {wrong}; the model's ids run from 0 to {vocab_size - 1}.",
            param=param,
        )
