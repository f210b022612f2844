"""Prompts as token ids that fit the context: what every dialect needs of them."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from penstock.server.engine_front import EngineFront
from penstock.vocabulary.errors import ContextTooLong, InvalidRequest
from penstock.vocabulary.sampling_params import SamplingParams

# Shorter texts are tokenized in less time than handing them to a thread takes.
MAX_CHARS_AT_ONCE = 8192

T = TypeVar("T")


class Prompt(NamedTuple):
    """One prompt. `text` is None for a prompt that came as token ids."""

    token_ids: list[int]
    text: str | None


def fitted(
    params: SamplingParams, prompts: list[Prompt], llm: EngineFront, *, field: str, is_given: bool
) -> SamplingParams:
    """`params` with max_tokens cut to the context, unless the client gave it: then it must fit.

    Raises `ContextTooLong`, blaming `field`, which the prompts came from.
    """
    longest = max(len(prompt.token_ids) for prompt in prompts)
    room = llm.max_model_len - longest
    wanted = params.max_tokens if is_given else None
    if (wanted or 1) > room:
        error = ContextTooLong(longest, wanted, llm.max_model_len)
        error.param = field
        raise error
    return msgspec.structs.replace(params, max_tokens=min(params.max_tokens or room, room))


def last_of(prompt: Prompt, count: int) -> Prompt:
    """The last `count` tokens of a prompt; one that has no more stays as it is."""
    if len(prompt.token_ids) <= count:
        return prompt
    return Prompt(prompt.token_ids[len(prompt.token_ids) - count :], None)


def none_empty(prompts: list[Prompt], field: str) -> list[Prompt]:
    """`prompts`, unless one has no token. Raises `InvalidRequest`, blaming `field`."""
    if not all(prompt.token_ids for prompt in prompts):
        raise InvalidRequest(f"The {field} must not be empty.", param=field)
    return prompts


async def off_loop_if_long(work: Callable[[], T], num_chars: int) -> T:
    """Tokenize, without keeping others waiting for a long text."""
    return await asyncio.to_thread(work) if num_chars > MAX_CHARS_AT_ONCE else work()
