"""TGI's events: one per token, the last with the whole text."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.generations import Generations
from penstock.server.sse import json_part
from penstock.server.tgi.details import GeneratedToken, StreamDetails, end_reason
from penstock.server.tgi.job import GenerateJob
from penstock.vocabulary.results import Delta


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One token. `generated_text` comes with the last, and so do `details` if asked for."""

    index: int
    token: GeneratedToken
    top_tokens: list[GeneratedToken] | UnsetType = UNSET
    generated_text: str | None = None
    details: StreamDetails | None = None


async def stream_events(job: GenerateJob, generations: Generations) -> AsyncGenerator[bytes]:
    """The answer as it comes."""
    report, text, num_tokens = job.report(), [job.prefix], 0
    async with aclosing(generations.arrivals()) as arrivals:
        async for _, delta in arrivals:
            text.append(delta.text)
            for entry in delta.logprobs:
                num_tokens += 1
                is_last = delta.finish_reason is not None and entry is delta.logprobs[-1]
                event = StreamEvent(
                    index=num_tokens,
                    token=report.token(entry),
                    top_tokens=report.top(entry) if job.num_top else UNSET,
                    generated_text="".join(text) if is_last else None,
                    details=_details(job, delta, num_tokens) if is_last else None,
                )
                yield b"data: " + json_part(event) + b"\n\n"


def _details(job: GenerateJob, delta: Delta, num_tokens: int) -> StreamDetails | None:
    if not job.parameters.details or delta.finish_reason is None:
        return None
    return StreamDetails(
        finish_reason=end_reason(delta.finish_reason.value, delta.stop_reason),
        generated_tokens=num_tokens,
        seed=job.seed,
        input_length=len(job.prompt_token_ids),
    )
