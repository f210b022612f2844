"""What the server needs of the engine's front, and nothing more.

`AsyncLLM` provides it; the tests provide a scripted one.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from penstock.engine.step_log import StepLog
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.messages import EngineStats
from penstock.vocabulary.results import Delta
from penstock.vocabulary.sampling_params import SamplingParams


class Generation(Protocol):
    """One submitted prompt. Iterating raises `EngineFailed` if the engine dies meanwhile."""

    @property
    def request_id(self) -> str: ...
    def __aiter__(self) -> AsyncIterator[Delta]: ...
    def cancel(self) -> None: ...


class Replica(Protocol):
    """One of the engines that compute a model. `pid` is its process, while there is one."""

    @property
    def is_ready(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def stats(self) -> EngineStats: ...


class EngineFront(Protocol):
    """A loaded model that takes prompts. `stats` are of all its replicas together."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def model_name(self) -> str: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def sampling_defaults(self) -> dict[str, Any]: ...
    @property
    def watermark_key(self) -> str | None: ...
    @property
    def end_token_ids(self) -> frozenset[int]: ...
    @property
    def embedding_size(self) -> int: ...
    @property
    def stats(self) -> EngineStats: ...
    @property
    def replicas(self) -> Sequence[Replica]: ...
    @property
    def steps(self) -> StepLog: ...
    @property
    def max_in_flight(self) -> int: ...
    @property
    def heartbeat_age_s(self) -> float: ...
    @property
    def is_ready(self) -> bool: ...
    def reset_prefix_cache(self) -> None: ...
    def check_room(self) -> None: ...
    def submit(
        self,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        salt: str = "",
        shown_token_ids: frozenset[int] = frozenset(),
        embeds: bool = False,
    ) -> Generation: ...
