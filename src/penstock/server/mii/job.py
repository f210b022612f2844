"""A request of MII's, understood and handed to the engine."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import Request

from penstock.engine.transcript import empty_result
from penstock.server.auth import salt_of
from penstock.server.front import Front
from penstock.server.generations import Generations
from penstock.server.mii.parameters import GenerateParams
from penstock.server.mii.response import Response, response_of, streamed_response
from penstock.server.prompts import Prompt, none_empty, off_loop_if_long
from penstock.server.visit import visit_of
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import Request as EngineRequest
from penstock.vocabulary.sampling_params import SamplingParams


@dataclass(frozen=True)
class Job:
    """Prompts to be continued, each with the options that its length leaves it."""

    prompts: list[Prompt]
    params: list[SamplingParams]
    full_text: bool

    def submit(self, front: Front, request: Request) -> Generations:
        """Hand all prompts to the engine, or none."""
        id_ = f"mii-{uuid.uuid4().hex}"
        generations = Generations(front, id_, visit=visit_of(request.scope))
        for prompt, params in zip(self.prompts, self.params, strict=True):
            generations.submit(
                [prompt.token_ids],
                params,
                priority=0,
                salt=salt_of(request.scope),
                shown_token_ids=frozenset(),
            )
        return generations

    async def responses(self, generations: Generations) -> list[Response]:
        """One for each prompt, when all have been continued."""
        outputs = [
            empty_result(
                EngineRequest(request_id="", prompt_token_ids=prompt.token_ids, sampling=params),
                prompt.text,
            )
            for prompt, params in zip(self.prompts, self.params, strict=True)
        ]
        async with aclosing(generations.arrivals()) as arrivals:
            async for position, delta in arrivals:
                outputs[position].add(delta)
        return [response_of(output, full_text=self.full_text) for output in outputs]

    async def streamed(self, generations: Generations) -> AsyncGenerator[Response]:
        """The continuation of the only prompt, as it comes."""
        [prompt] = self.prompts
        before = prompt.text or "" if self.full_text else ""
        num_tokens = 0
        async with aclosing(generations.arrivals()) as arrivals:
            async for _, delta in arrivals:
                num_tokens += len(delta.token_ids)
                if before or delta.text or delta.finish_reason:
                    yield streamed_response(
                        delta,
                        before=before,
                        prompt_len=len(prompt.token_ids),
                        num_tokens=num_tokens,
                    )
                    before = ""


async def understood(
    front: Front, prompts: str | list[str], options: GenerateParams, *, field: str
) -> Job:
    """The job of a request whose prompts were in `field`. Raises `InvalidRequest`."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not texts:
        raise InvalidRequest(f"{field} is an empty list.", param=field)
    if len(texts) > front.settings.max_prompts:
        raise InvalidRequest(
            f"The request has {len(texts)} prompts; this server accepts "
            f"{front.settings.max_prompts} at a time.",
            param=field,
        )
    if options.stream and len(texts) > 1:
        raise InvalidRequest(
            f"Only one prompt can be streamed; the request has {len(texts)}.", param="stream"
        )
    encode = front.llm.tokenizer.encode

    def encode_all() -> list[Prompt]:
        return [Prompt(encode(text) if text else [], text) for text in texts]

    encoded = none_empty(await off_loop_if_long(encode_all, sum(map(len, texts))), field)
    lengths = [len(prompt.token_ids) for prompt in encoded]
    params = [options.sampling(length, front.llm.max_model_len) for length in lengths]
    return Job(encoded, params, options.return_full_text)
