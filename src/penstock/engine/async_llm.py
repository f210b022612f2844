"""`AsyncLLM`: the engine in a process of its own, and its front in this one. Imports no torch."""

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec

from penstock.engine.checks import check_request, refused
from penstock.engine.engine_process import EngineProcess, failure
from penstock.engine.front_settings import FrontSettings
from penstock.engine.settings import (
    EngineSettings,
    OnProgress,
    Resolved,
    settings_from,
)
from penstock.engine.step_log import StepLog
from penstock.engine.transcript import Transcript
from penstock.engine.wire import Failed, FromEngine, Start, Turn
from penstock.models.location import find_model
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import (
    EngineFailed,
    InvalidRequest,
    Overloaded,
    PenstockError,
    Unavailable,
)
from penstock.vocabulary.messages import (
    Cancel,
    EngineStats,
    Output,
    Request,
    ResetPrefixCache,
)
from penstock.vocabulary.results import Delta
from penstock.vocabulary.sampling_params import SamplingParams

_LONGEST_PAUSE_S = 30.0

log = logging.getLogger("penstock")


class Generation:
    """One submitted prompt. Iterate over it for its deltas; cancel it when nobody wants them any
    more.
    """

    def __init__(self, request: Request, transcript: Transcript, owner: "AsyncLLM") -> None:
        self.request_id = request.request_id
        self.num_sequences = request.sampling.n
        self._transcript = transcript
        self._owner = owner
        self._deltas: asyncio.Queue[Delta | PenstockError | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """Deltas until every completion has ended. Raises `EngineFailed` if the engine dies
        meanwhile.
        """
        try:
            while (delta := await self._deltas.get()) is not None:
                if isinstance(delta, PenstockError):
                    raise delta
                yield delta
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Free what the engine holds for this; no error if it has ended already."""
        self._owner._release(self, cancel=True)
        self._deltas.put_nowait(None)

    def _add(self, output: Output) -> None:
        if output.refusal is not None:
            self._owner._release(self, cancel=False)
            self._fail(refused(output.refusal))
            return
        delta = self._transcript.add(output)
        if delta is None:
            return
        if delta.finish_reason is not None and output.finish_reason is None:
            self._owner._cancel(self.request_id, output.index)
        self._deltas.put_nowait(delta)
        if self._transcript.has_ended:
            self._owner._release(self, cancel=False)
            self._deltas.put_nowait(None)

    def _fail(self, error: PenstockError) -> None:
        self._deltas.put_nowait(error)


class AsyncLLM:
    """A model served by an engine process, which is started again should it die.

        async with AsyncLLM() as llm:
            prompt = llm.tokenizer.encode("def fibonacci(n):")
            async for delta in llm.submit(prompt, SamplingParams(max_tokens=60)):
                print(delta.text, end="")

    `front` says how many completions may wait and when an engine counts as stuck; all other
    settings are those of `EngineSettings`.
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
        self.stats = EngineStats()
        self.steps = StepLog()
        self.tokenizer: Tokenizer
        self.resolved: Resolved
        self.notes: list[str] = []
        self.sampling_defaults: dict[str, Any] = {}
        self.end_token_ids: frozenset[int] = frozenset()
        self.embedding_size = 0
        self._engine: EngineProcess | None = None
        self._generations: dict[str, Generation] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._finished_at: deque[float] = deque(maxlen=64)
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
    def engine_pid(self) -> int | None:
        """The engine's process, while there is one."""
        return self._engine.pid if self._engine else None

    @property
    def max_model_len(self) -> int:
        return self.resolved.max_model_len

    @property
    def watermark_key(self) -> str | None:
        """The secret that marks texts, if there is one."""
        return self.settings.watermark_key

    @property
    def num_in_flight(self) -> int:
        """Requests submitted and not finished."""
        return len(self._generations)

    @property
    def max_in_flight(self) -> int:
        """Most completions that may run or wait at once."""
        return self.resolved.max_num_seqs + self.front.max_waiting

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the engine's loop last turned."""
        return time.monotonic() - self._heard_at

    @property
    def is_ready(self) -> bool:
        return self._engine is not None and self.heartbeat_age_s < self.front.heartbeat_timeout_s

    # -- life ------------------------------------------------------------------------------------

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Find the model and start the engine. Raises `ModelError` or `SettingsError` if that
        cannot be.
        """
        name, model_dir = await asyncio.to_thread(
            find_model, self.settings.model, self.settings.revision
        )
        self._start_message = Start(
            settings=self.settings,
            name=name,
            model_dir=str(model_dir),
            log_format=self.front.log_format,
        )
        launched = asyncio.create_task(self._launch(on_progress or (lambda done, total: None)))
        try:
            self.tokenizer = await asyncio.to_thread(
                Tokenizer.from_dir, model_dir, max_chars=self.front.max_prompt_chars
            )
            await launched
        except BaseException:
            launched.cancel()
            await asyncio.wait([launched])
            raise
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Stop the engine. Requests still in flight end with `EngineFailed`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        self._fail_all("The engine was stopped.")

    async def _launch(self, on_progress: OnProgress) -> None:
        engine, ready = await EngineProcess.launch(self._start_message, on_progress)
        self.resolved = replace(ready.resolved, model=self._start_message.name)
        self.notes, self.sampling_defaults = ready.notes, ready.sampling_defaults
        self.end_token_ids, self.embedding_size = ready.end_token_ids, ready.embedding_size
        self._heard_at = time.monotonic()
        self._engine = engine

    async def _supervise(self) -> None:
        """Listen to the engine; when it dies, say so to all who wait, and start another."""
        pause_s = 0.5
        while True:
            if self._engine is not None:
                watchdog = asyncio.create_task(self._watch(self._engine))
                try:
                    reason = await self._listen(self._engine)
                except msgspec.DecodeError as error:
                    reason = f"it said what cannot be understood: {error}"
                finally:
                    watchdog.cancel()
                exit_code = await self._bury()
                log.error("engine process ended (exit code %s): %s", exit_code, reason)
            await asyncio.sleep(pause_s)
            try:
                await self._launch(lambda done, total: None)
                log.warning("engine process started again")
                pause_s = 0.5
            except (PenstockError, OSError) as error:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                log.error(
                    "engine could not be started again, next try in %.0f s: %s", pause_s, error
                )

    async def _bury(self) -> int:
        engine, self._engine = self._engine, None
        assert engine is not None
        self.stats = EngineStats(num_blocks=self.stats.num_blocks)
        self._fail_all("The engine process died while it worked on this request.")
        return await engine.close()

    async def _listen(self, engine: EngineProcess) -> str:
        async for message in engine.messages():
            self._heard_at = time.monotonic()
            if isinstance(message, Failed):
                return str(failure(message))
            self._take(message)
        return "it closed its connection"

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, Turn):
            self.stats = message.stats
            if message.step is not None:
                self.steps.add(message.step)
            for output in message.outputs:
                generation = self._generations.get(output.request_id)
                if generation is not None:
                    self._hand_over(generation, output)

    def _hand_over(self, generation: Generation, output: Output) -> None:
        """One request's text must never be what stops all others from being heard."""
        try:
            generation._add(output)
        except Exception:
            log.exception("request %s cannot be turned into text", generation.request_id)
            self._release(generation, cancel=True)
            generation._fail(EngineFailed("The tokens of this request cannot be turned into text."))

    async def _watch(self, engine: EngineProcess) -> None:
        while self.heartbeat_age_s < self.front.watchdog_s:
            await asyncio.sleep(min(1.0, self.front.watchdog_s / 4))
        log.error("no turn of the engine's loop for %.0f s; killing it", self.heartbeat_age_s)
        engine.dump_stacks()
        await asyncio.sleep(0.5)
        engine.kill()

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
        """Hand a prompt to the engine.

        `shown_token_ids` are special tokens to leave in the text for whoever looks for them.
        Raises, before anything is sent, `InvalidRequest` if it can never be answered, `Overloaded`
        if too many wait already, and `Unavailable` while there is no engine.
        """
        can_watermark = self.watermark_key is not None
        check_request(
            prompt_token_ids, params, self.resolved, can_watermark=can_watermark, embeds=embeds
        )
        engine = self._running_engine()
        self._check_room(request_id, params.n)
        request = Request(
            request_id=request_id or f"{self._run_id}-{next(self._numbers)}",
            prompt_token_ids=prompt_token_ids,
            sampling=params,
            priority=priority,
            salt=salt,
            embeds=embeds,
        )
        transcript = Transcript(request, self.tokenizer, shown_token_ids=shown_token_ids)
        generation = Generation(request, transcript, self)
        self._generations[request.request_id] = generation
        engine.send(request)
        return generation

    def reset_prefix_cache(self) -> None:
        """Have the engine forget all cached prefixes. Raises `Unavailable` while there is none."""
        self._running_engine().send(ResetPrefixCache())

    def _running_engine(self) -> EngineProcess:
        if self._engine is None:
            raise Unavailable("The engine is being started again.", remedy="Try again in a moment.")
        return self._engine

    def _check_room(self, request_id: str | None, num_sequences: int) -> None:
        if request_id in self._generations:
            raise InvalidRequest(f"Request id {request_id!r} is in use.", param="request_id")
        if num_sequences > self.max_in_flight:
            raise InvalidRequest(
                f"{num_sequences} completions are more than the {self.max_in_flight} that may run "
                "or wait at once.",
                param="n",
            )
        in_flight = sum(generation.num_sequences for generation in self._generations.values())
        if in_flight + num_sequences > self.max_in_flight:
            raise Overloaded(
                f"{in_flight} completions are running or waiting, and no more may wait.",
                retry_after_s=self._retry_after_s(),
            )

    def _retry_after_s(self) -> int:
        """When the queue will have moved on by as much as is waiting, at the pace of late."""
        times = self._finished_at
        if len(times) < 2 or times[-1] == times[0]:
            return 1
        rate = (len(times) - 1) / (times[-1] - times[0])
        return int(min(60, max(1, self.stats.num_waiting / rate)))

    def _cancel(self, request_id: str, index: int | None = None) -> None:
        if self._engine is not None:
            self._engine.send(Cancel(request_id=request_id, index=index))

    def _release(self, generation: Generation, *, cancel: bool) -> None:
        if self._generations.get(generation.request_id) is not generation:
            return  # over already; another may go by its id
        del self._generations[generation.request_id]
        if cancel:
            self._cancel(generation.request_id)
        else:
            self._finished_at.append(time.monotonic())

    def _fail_all(self, words: str) -> None:
        generations, self._generations = self._generations, {}
        for generation in generations.values():
            generation._fail(EngineFailed(words, remedy="Send it again."))
