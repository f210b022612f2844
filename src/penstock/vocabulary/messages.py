"""What crosses the boundary between whoever asks and the engine: a `Request` in, `Output`s back.

All are msgspec structs, so they travel between processes as MessagePack without any pickle.
"""

from enum import StrEnum

import msgspec

from penstock.vocabulary.sampling_params import SamplingParams


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # an end-of-text token, a stop token or a stop string
    LENGTH = "length"  # max_tokens, or the context is full
    CANCELLED = "cancelled"  # nobody waits for it any more


class Request(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """One prompt to be continued `sampling.n` times.

    `priority`: lower is served earlier; equal priorities are served in order of arrival.
    `salt` and `adapter` keep prefix-cache blocks apart: blocks are shared only where both agree.
    A request that `embeds` is not continued: what comes of it is one vector.
    """

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    priority: int = 0
    salt: str = ""
    adapter: str = ""
    embeds: bool = False


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Nobody waits for this completion any more (all of the request's, if `index` is None).

    An id that the engine does not hold is ignored.
    """

    request_id: str
    index: int | None = None


class ResetPrefixCache(msgspec.Struct, frozen=True, tag="reset_prefix_cache"):
    """Forget all cached prefixes; what is running is not disturbed."""


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities at one position, of the model itself: before temperature, masks and
    penalties.

    `rank` is 1 for the likeliest token of the vocabulary; `top` holds the likeliest, best first.
    """

    token_id: int
    logprob: float
    rank: int
    top: list[tuple[int, float]]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request cannot be answered, or not any further; `param` is the field at fault."""

    message: str
    param: str | None = None
    remedy: str = ""


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step added to one completion of a request.

    `logprobs` has one entry per token of `token_ids` when they were asked for. `prompt_logprobs`
    has one per prompt token computed in this step, except the first of the prompt, which nothing
    predicts. `num_cached` says, once per completion, how many prompt tokens the prefix cache held,
    and `admitted_at` when it was first computed, by `time.monotonic`, which all processes share.
    `embedding` comes with the end of a request that embeds: the mean of the hidden states of its
    tokens, of length 1. After a `refusal` nothing more comes of the whole request.
    """

    request_id: str
    index: int = 0
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    prompt_logprobs: list[TokenLogprobs] = []
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached: int | None = None
    admitted_at: float | None = None
    embedding: list[float] = []
    refusal: Refusal | None = None


class PromptSlice(msgspec.Struct, frozen=True, array_like=True):
    """Known tokens of one sequence that a step computed; `sequence` counts arrivals."""

    sequence: int
    num_tokens: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One computed step, for those who watch. It tells who came when, and nothing of any text.

    `num_decoding` counts the tokens computed beyond prompts, `prompt_slices` the others. `ended_at`
    is Unix time. What runs, waits and is held is told as it was when the step had ended. The shares
    are of what the machine could have done in `duration_s`: of its multiply-adds (MFU), and of the
    bytes that it reads from memory (MBU); None until somebody has measured that.
    """

    number: int
    replica: int | None = None
    """Which engine computed it, where there are several."""
    ended_at: float
    duration_s: float
    token_budget: int
    num_decoding: int
    prompt_slices: list[PromptSlice]
    num_running: int
    num_waiting: int
    num_blocks_used: int
    num_multiply_adds: int
    num_bytes_read: int
    arithmetic_share: float | None
    bandwidth_share: float | None


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """The engine at one moment; the counters run from its start."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_blocks_used: int = 0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_forced_tokens: int = 0
    num_multiply_adds: int = 0
    """What the model's computations came to; a multiplication and an addition count as one."""
    num_bytes_read: int = 0
    """Bytes of weights, keys and values that had to come from memory."""
    busy_s: float = 0.0
    """Time in which the engine was computing."""
    num_recomputed_tokens: int = 0
    num_preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_grammars_compiled: int = 0
    num_grammars_refused: int = 0
    num_grammars_reused: int = 0
    limit_multiply_adds_per_s: float = 0.0
    """What the machine was measured to be capable of, of the kind that the weights take; 0 if it
    was not measured."""
    limit_bytes_per_s: float = 0.0
    """Likewise, of bytes read from memory."""
