"""`AsyncLLM`: engines in processes of their own, and their front in this one. Imports no torch."""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from penstock.engine.checks import check_request
from penstock.engine.front_settings import FrontSettings
from penstock.engine.generation import Generation
from penstock.engine.placement import replica_devices, shares
from penstock.engine.replica import Replica
from penstock.engine.replicas import Replicas
from penstock.engine.settings import (
    EngineSettings,
    OnProgress,
    Resolved,
    settings_from,
)
from penstock.engine.step_log import StepLog
from penstock.engine.transcript import Transcript
from penstock.engine.wire import Ready, Start
from penstock.models.location import find_model
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.messages import EngineStats, Request, Step
from penstock.vocabulary.sampling_params import SamplingParams


class AsyncLLM:
    """A model served by one engine process or several, each started again should it die.

        async with AsyncLLM() as llm:
            prompt = llm.tokenizer.encode("def fibonacci(n):")
            async for delta in llm.submit(prompt, SamplingParams(max_tokens=60)):
                print(delta.text, end="")

    `front` says how many engines there are, how many completions may wait and when an engine counts
    as stuck; all other settings are those of `EngineSettings`. Raises `SettingsError` for those
    that contradict each other.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        front: FrontSettings | None = None,
        **settings: Any,
    ) -> None:
        self.settings: EngineSettings = settings_from({"model": model, **settings})
        self.front = front or FrontSettings()
        self.steps = StepLog()
        self.tokenizer: Tokenizer
        self._devices = replica_devices(
            self.settings.device, self.front.replicas, self.front.device_map
        )
        self._replicas = Replicas([], self.front, self._note)
        self._numbers = itertools.count()
        self._run_id = secrets.token_hex(4)

    async def __aenter__(self) -> "AsyncLLM":
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- what there is ---------------------------------------------------------------------------

    @property
    def model_name(self) -> str:
        return self.resolved.model

    @property
    def resolved(self) -> Resolved:
        """The settings of every engine, once they have started; of what differs, the least."""
        return self._replicas.resolved

    @property
    def max_model_len(self) -> int:
        return self.resolved.max_model_len

    @property
    def notes(self) -> list[str]:
        """What an engine says of its start, and of what its hardware lacks."""
        return self._ready.notes

    @property
    def sampling_defaults(self) -> dict[str, Any]:
        return self._ready.sampling_defaults

    @property
    def end_token_ids(self) -> frozenset[int]:
        return self._ready.end_token_ids

    @property
    def embedding_size(self) -> int:
        return self._ready.embedding_size

    @property
    def watermark_key(self) -> str | None:
        """The secret that marks texts, if there is one."""
        return self.settings.watermark_key

    @property
    def replicas(self) -> Sequence[Replica]:
        """The engines, once they have been asked to start."""
        return self._replicas.all

    @property
    def stats(self) -> EngineStats:
        """All engines at this moment, as if they were one."""
        return self._replicas.stats

    @property
    def num_in_flight(self) -> int:
        """Requests submitted and not finished."""
        return sum(replica.num_requests for replica in self.replicas)

    @property
    def max_in_flight(self) -> int:
        """Most completions that may run or wait at once."""
        return sum(replica.max_load for replica in self.replicas)

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since an engine's loop last turned."""
        return min(replica.heartbeat_age_s for replica in self.replicas)

    @property
    def is_ready(self) -> bool:
        """At least one engine answers."""
        return any(replica.is_ready for replica in self.replicas)

    @property
    def _ready(self) -> Ready:
        return self.replicas[0].ready

    # -- life ------------------------------------------------------------------------------------

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Find the model and start the engines. Raises `ModelError` or `SettingsError` if that
        cannot be.
        """
        name, model_dir = await asyncio.to_thread(
            find_model, self.settings.model, self.settings.revision
        )
        starts = [
            Start(
                settings=replace(self.settings, device=device),
                share=share,
                name=name,
                model_dir=str(model_dir),
                log_format=self.front.log_format,
            )
            for device, share in zip(self._devices, shares(len(self._devices)), strict=True)
        ]
        self._replicas = Replicas(starts, self.front, self._note)
        started = asyncio.create_task(
            self._replicas.start(on_progress or (lambda done, total: None))
        )
        try:
            self.tokenizer = await asyncio.to_thread(
                Tokenizer.from_dir, model_dir, max_chars=self.front.max_prompt_chars
            )
            await started
        except BaseException:
            started.cancel()
            await asyncio.wait([started])
            await self.close()
            raise

    async def close(self) -> None:
        """Stop the engines. Requests still in flight end with `EngineFailed`."""
        await self._replicas.close()

    def _note(self, replica: int, step: Step) -> None:
        """Steps are counted as they are heard of, whoever has computed them."""
        number, is_one_of_several = self.steps.num_added + 1, len(self.replicas) > 1
        whose = replica if is_one_of_several else None
        self.steps.add(msgspec.structs.replace(step, number=number, replica=whose))

    # -- requests --------------------------------------------------------------------------------

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
    ) -> Generation:
        """Hand a prompt to an engine.

        `shown_token_ids` are special tokens to leave in the text for whoever looks for them.
        Raises, before anything is sent, `InvalidRequest` if it can never be answered, `Overloaded`
        if too many wait already, and `Unavailable` while there is no engine.
        """
        can_watermark = self.watermark_key is not None
        check_request(
            prompt_token_ids, params, self.resolved, can_watermark=can_watermark, embeds=embeds
        )
        request = Request(
            request_id=request_id or f"{self._run_id}-{next(self._numbers)}",
            prompt_token_ids=prompt_token_ids,
            sampling=params,
            priority=priority,
            salt=salt,
            embeds=embeds,
        )
        replica = self._replicas.choose(request)
        transcript = Transcript(request, self.tokenizer, shown_token_ids=shown_token_ids)
        return replica.submit(request, transcript)

    def check_room(self) -> None:
        """Whether there is room for one completion more.

        Raises `Overloaded` if too many wait already, and `Unavailable` while there is no engine.
        """
        self._replicas.check_room()

    def reset_prefix_cache(self) -> None:
        """Have all engines forget all cached prefixes. Raises `Unavailable` while there is none."""
        self._replicas.reset_prefix_caches()
