"""The parameters of /score, and what they mean in our options."""

import json
import logging
from typing import Annotated, Any

import msgspec
import msgspec.structs
from msgspec import Meta

from penstock.server.decoding import converted
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import (
    MAX_NAME_LEN,
    SamplingParams,
    sampling_params_from,
)

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 256
MAX_NAMES_TOLD = 10  # by the log, of parameters that are dropped

IGNORED = {"_batch_size": "prompts are batched with all others as they come"}
"""Accepted without effect, and why that is right."""


def _about(text: str) -> Meta:
    return Meta(description=text)


class ScoreParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What /score takes beside the sampling options."""

    max_new_tokens: Annotated[
        int | None, _about("Most tokens to generate; 256 unless the model says otherwise.")
    ] = None
    max_gen_len: Annotated[int | None, _about("Another name of max_new_tokens.")] = None
    max_tokens: Annotated[int | None, _about("Another name of max_new_tokens.")] = None
    do_sample: Annotated[bool | None, _about("False takes the likeliest token.")] = None
    return_full_text: Annotated[bool, _about("Begin the answer to a text with that text.")] = True
    add_generation_prompt: Annotated[
        bool, _about("End a conversation where the assistant's turn begins.")
    ] = True
    eos_token_id: Annotated[int | list[int] | None, _about("Further tokens that end the text.")] = (
        None
    )
    stop_token_ids: Annotated[list[int] | None, _about("The same.")] = None
    use_beam_search: Annotated[bool, _about("Not supported yet; false passes.")] = False
    best_of: Annotated[int, _about("Not supported yet; 1 passes.")] = 1


def understood(
    given: dict[str, Any], defaults: dict[str, Any], *, drops_unknown: bool
) -> tuple[ScoreParameters, SamplingParams, bool]:
    """The endpoint's own parameters, our options, and whether the length was given.

    Raises `InvalidRequest` for an unknown parameter, unless these are to be dropped.
    """
    own_names = ScoreParameters.__struct_fields__
    given = {name: value for name, value in given.items() if name not in IGNORED}
    if drops_unknown:
        given = _known(given, own_names)
    own = converted({name: given[name] for name in own_names if name in given}, ScoreParameters)
    _check_supported(own)
    options = {name: value for name, value in given.items() if name not in own_names}
    max_tokens = _max_tokens(own)
    options = {"max_tokens": DEFAULT_MAX_TOKENS, **defaults, **options}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if own.do_sample is False:
        options["temperature"] = 0.0
    ends = [own.eos_token_id] if isinstance(own.eos_token_id, int) else own.eos_token_id or []
    if stop_token_ids := [*(own.stop_token_ids or ()), *ends]:
        options["stop_token_ids"] = stop_token_ids
    params = sampling_params_from(options, also_known=[*own_names, *IGNORED])
    _check_one_text(params)
    return own, params, max_tokens is not None


def _known(given: dict[str, Any], own_names: tuple[str, ...]) -> dict[str, Any]:
    known = {*own_names, *SamplingParams.__struct_fields__}
    if unknown := given.keys() - known:
        told = [name[:MAX_NAME_LEN] for name in sorted(unknown)[:MAX_NAMES_TOLD]]
        logger.warning("/score drops unknown parameters: %s", json.dumps(told))
    return {name: value for name, value in given.items() if name in known}


def _check_supported(own: ScoreParameters) -> None:
    for name, harmless in (("use_beam_search", False), ("best_of", 1)):
        if getattr(own, name) != harmless:
            raise InvalidRequest(f"{name} is not supported yet by this server.", param=name)


def _check_one_text(params: SamplingParams) -> None:
    for name, harmless in (("n", 1), ("logprobs", None), ("prompt_logprobs", None)):
        if getattr(params, name) != harmless:
            raise InvalidRequest(
                f"{name}: /score answers each prompt with one text, and nothing else.", param=name
            )


def _max_tokens(own: ScoreParameters) -> int | None:
    names = ("max_new_tokens", "max_gen_len", "max_tokens")
    given = {name: value for name in names if (value := getattr(own, name)) is not None}
    if len(set(given.values())) > 1:
        first, second = list(given)[:2]
        raise InvalidRequest(f"{first} and {second} differ.", param=second)
    return next(iter(given.values()), None)
