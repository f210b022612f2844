"""One of TGI's requests for text, understood."""

import uuid
from dataclasses import dataclass

import msgspec
from fastapi import Request

from penstock.engine.transcript import empty_result
from penstock.server.auth import salt_of
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.prompts import Prompt, off_loop_if_long
from penstock.server.tgi.details import TokenReport
from penstock.server.tgi.parameters import (
    GenerateParameters,
    checked,
    chosen_seed,
    sampling_params,
)
from penstock.server.visit import visit_of
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import Request as EngineRequest
from penstock.vocabulary.results import RequestOutput
from penstock.vocabulary.sampling_params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class GenerateJob:
    """`inputs` to be continued. `seed` is what to report of `params`, which has it with a sign."""

    inputs: str
    prompt_token_ids: list[int]
    params: SamplingParams
    seed: int | None
    parameters: GenerateParameters
    tokenizer: Tokenizer

    @property
    def num_top(self) -> int:
        return self.parameters.top_n_tokens or 0

    @property
    def prefix(self) -> str:
        """What every text of the answer begins with."""
        return self.inputs if self.parameters.return_full_text else ""

    def report(self) -> TokenReport:
        """A reporter of one completion's tokens."""
        return TokenReport(self.tokenizer, self.prompt_token_ids, self.num_top)

    def empty_result(self) -> RequestOutput:
        """A result that deltas can be added to."""
        return empty_result(
            EngineRequest(
                request_id="", prompt_token_ids=self.prompt_token_ids, sampling=self.params
            ),
            self.inputs,
        )


async def understood(
    front: Front, inputs: str, parameters: GenerateParameters, *, stream: bool
) -> GenerateJob:
    """The job of a request. Raises `InvalidRequest`, in TGI's words."""
    checked(parameters, front.settings, stream=stream)
    prompt = await _prompt(front, inputs, parameters.truncate)
    seed = chosen_seed(parameters)
    params = sampling_params(
        parameters, seed=seed, reports_tokens=stream or parameters.reports_details
    )
    return GenerateJob(
        inputs=inputs,
        prompt_token_ids=prompt.token_ids,
        params=_fitted(params, len(prompt.token_ids), front.llm.max_model_len),
        seed=seed,
        parameters=parameters,
        tokenizer=front.llm.tokenizer,
    )


async def _prompt(front: Front, inputs: str, truncate: int | None) -> Prompt:
    longest = max_input_tokens(front)
    if truncate is not None and not 0 < truncate <= longest:
        raise InvalidRequest(
            f"`truncate` must be strictly positive and less than {longest}. Given: {truncate}",
            param="truncate",
        )
    encode = front.llm.tokenizer.encode
    token_ids = await off_loop_if_long(lambda: encode(inputs) if inputs else [], len(inputs))
    if not token_ids:
        raise InvalidRequest("`inputs` cannot be empty", param="inputs")
    return Prompt(token_ids if truncate is None else token_ids[-truncate:], inputs)


def max_input_tokens(front: Front) -> int:
    """The longest prompt that leaves room for an answer."""
    return front.llm.max_model_len - 1


def _fitted(params: SamplingParams, prompt_len: int, max_model_len: int) -> SamplingParams:
    """`params` with max_tokens, which must fit where it is given."""
    room = max_model_len - prompt_len
    if params.max_tokens is not None and params.max_tokens > room:
        raise InvalidRequest(
            f"`inputs` tokens + `max_new_tokens` must be <= {max_model_len}. "
            f"Given: {prompt_len} `inputs` tokens and {params.max_tokens} `max_new_tokens`",
            param="max_new_tokens",
        )
    if room < 1:
        raise InvalidRequest(
            f"`inputs` must have less than {max_model_len} tokens. Given: {prompt_len}",
            param="inputs",
        )
    return msgspec.structs.replace(params, max_tokens=params.max_tokens or room)


def submitted(front: Front, request: Request, *jobs: GenerateJob) -> Generations:
    """Hand jobs to the engine, all or none."""
    generations = Generations(front, f"tgi-{uuid.uuid4().hex}", visit=visit_of(request.scope))
    for job in jobs:
        generations.submit(
            [job.prompt_token_ids],
            job.params,
            priority=0,
            salt=salt_of(request.scope),
            shown_token_ids=frozenset(),
        )
    return generations
