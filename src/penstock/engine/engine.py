"""The loop's body: one step computes what the scheduler planned and hands out what came of it."""

import logging
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec

from penstock.engine.constraint import Constraint, constraint_of
from penstock.engine.cost import Cost, CostModel
from penstock.engine.grammars import Grammars
from penstock.engine.machine_use import MachineLimits
from penstock.engine.runner import Launched, Runner, SliceResult
from penstock.engine.settings import Resolved
from penstock.scheduling.scheduler import Scheduler
from penstock.scheduling.sequence import Plan, Sequence, Slice
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import (
    Cancel,
    EngineStats,
    FinishReason,
    Output,
    PromptSlice,
    Refusal,
    Request,
    Step,
    TokenLogprobs,
)

if TYPE_CHECKING:
    from llguidance import LLMatcher

log = logging.getLogger("penstock.engine")


@dataclass(slots=True)
class _Counters:
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_forced_tokens: int = 0
    num_multiply_adds: int = 0
    num_bytes_read: int = 0
    busy_s: float = 0.0


@dataclass(slots=True)
class Engine:
    """Owns the loop. `add` and `cancel` between steps, `step` while `has_work`.

    Requests have been checked against the model (`engine/checks.py`) before they come here. One
    with a grammar waits until that is compiled (`engine/grammars.py`). With `fast_forward`, tokens
    that a grammar forces are taken without a step for each; the text is the same without. With
    `plans_ahead`, a step is planned and launched before the one before it is read, so that a device
    finds it waiting; sequences end one step late, and the text is the same. `limits` are the
    machine's, for statistics, once somebody has measured them.

    `last_step` tells of the newest turn what it computed; None if that was nothing.
    """

    resolved: Resolved
    scheduler: Scheduler
    runner: Runner
    grammars: Grammars
    cost: CostModel
    max_model_len: int
    end_token_ids: frozenset[int]
    seed: int | None = None
    fast_forward: bool = True
    limits: MachineLimits | None = None
    plans_ahead: bool = False
    last_step: Step | None = field(init=False, default=None)
    _launched: Launched | None = field(init=False, default=None)
    _settled_at: float = field(init=False, default=0.0)
    _counters: _Counters = field(default_factory=_Counters)

    def add(self, request: Request) -> None:
        """Queue a request's completions."""
        grammar = request.sampling.grammar
        if grammar is None:
            self._queue(request, None)
        else:
            self.grammars.add(request, grammar)

    def cancel(self, cancel: Cancel) -> None:
        """Free what the request holds."""
        if cancel.index is None:
            self.grammars.cancel(cancel.request_id)
        self.scheduler.cancel(cancel.request_id, cancel.index)

    def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes; sequences keep what they share already."""
        self.scheduler.blocks.forget()

    @property
    def has_work(self) -> bool:
        launched = self._launched is not None
        return launched or self.scheduler.has_work or self.grammars.has_ready

    def wait(self) -> None:
        """Sleep until there is work, if a grammar is being compiled."""
        if not self.has_work:
            self.grammars.wait()

    def step(self) -> list[Output]:
        """One turn: plan, compute, commit. One output per completion that something happened to.

        Planning ahead, what is committed is the step before the one that is planned.
        """
        outputs = self._queue_compiled()
        self.last_step = None
        before, self._launched = self._launched, None
        if before is not None and _decides_what_is_next(before.plan):
            outputs += self._settle(before)
            before = None
        launched = self._launch()
        if before is not None:
            outputs += self._settle(before)
        if launched is not None and not self.plans_ahead:
            return outputs + self._settle(launched)
        self._launched = launched
        return outputs

    def _launch(self) -> Launched | None:
        """Plan a step and have it computed, if there is anything to compute."""
        began = time.perf_counter()
        plan = self.scheduler.schedule()
        if not plan.slices:
            return None
        self._count(plan)
        launched = self.runner.launch(plan)
        self._counters.busy_s += time.perf_counter() - began
        return launched

    def _settle(self, launched: Launched) -> list[Output]:
        """Wait for a step, and take in what came of it."""
        began = time.perf_counter()
        plan, results = launched.plan, launched.results()
        self._counters.busy_s += time.perf_counter() - began
        followed = [
            self._followed(part.sequence, result.token_ids)
            for part, result in zip(plan.slices, results, strict=True)
        ]
        outputs = []
        taken = self.scheduler.commit(plan, followed)
        for part, result, ahead, token_ids in zip(
            plan.slices, results, followed, taken, strict=True
        ):
            _settle_end(part.sequence, ahead[len(token_ids) :])
            self._counters.num_generated_tokens += len(token_ids)
            self._counters.num_forced_tokens += max(0, len(token_ids) - 1)
            result.token_ids = token_ids
            result.prompt_logprobs = self._unread(part, result)
            if part.sequence.finish_reason is FinishReason.CANCELLED:
                continue
            if token_ids or result.prompt_logprobs or result.embedding:
                outputs.append(_output(part.sequence, result))
        outputs = self._refuse_failed(plan, outputs)
        now = time.perf_counter()
        duration_s = now - max(launched.began_at, self._settled_at)
        self.last_step = self._told(plan, self._spent(plan), duration_s)
        self._settled_at = now
        return outputs

    def stats(self) -> EngineStats:
        """The engine at this moment."""
        stats = self.scheduler.stats(
            **asdict(self._counters),
            num_grammars_compiled=self.grammars.counters.num_compiled,
            num_grammars_refused=self.grammars.counters.num_refused,
            num_grammars_reused=self.grammars.counters.num_reused,
        )
        return msgspec.structs.replace(
            stats,
            num_waiting=stats.num_waiting + self.grammars.num_waiting,
            limit_multiply_adds_per_s=self.limits.multiply_adds_per_s if self.limits else 0.0,
            limit_bytes_per_s=self.limits.bytes_read_per_s if self.limits else 0.0,
        )

    # -- coming ----------------------------------------------------------------------------------

    def _queue(self, request: Request, matcher: "LLMatcher | None") -> None:
        params = request.sampling
        seed = self._seed(params.seed)
        prompt_len = len(request.prompt_token_ids)
        room = 0 if request.embeds else self.max_model_len - prompt_len
        self.scheduler.add(
            [
                Sequence(
                    request=request,
                    index=index,
                    max_len=prompt_len + min(params.max_tokens or room, room),
                    end_token_ids=frozenset() if params.ignore_eos else self.end_token_ids,
                    seed=seed,
                    constraint=matcher and Constraint.begin(matcher, self.grammars.end_token_id),
                )
                for index in range(params.n)
            ]
        )

    def _seed(self, asked: int | None) -> int:
        if asked is not None:
            return asked
        return self.seed if self.seed is not None else secrets.randbits(63)

    def _queue_compiled(self) -> list[Output]:
        """Queue the requests whose grammar has been compiled; refuse those where it cannot be."""
        refused = []
        for request, future in self.grammars.take_ready():
            error = future.exception()
            if error is None:
                self._queue(request, future.result())
            else:
                refused.append(_refusal(request, error))
        return refused

    # -- going on --------------------------------------------------------------------------------

    def _followed(self, sequence: Sequence, token_ids: list[int]) -> list[int]:
        """The drawn token, and those that a grammar forces behind it.

        With log probabilities asked for, none is forced ahead: each is to have the model's own.
        """
        if sequence.constraint is None or not token_ids:
            return token_ids
        constraint = constraint_of(sequence)
        token_id = constraint.advance(token_ids[0])
        if not self.fast_forward or sequence.request.sampling.logprobs is not None:
            return [token_id]
        return [token_id, *constraint.take_forced()]

    def _refuse_failed(self, plan: Plan, outputs: list[Output]) -> list[Output]:
        """End the requests whose grammar has become too complex to follow."""
        for part in plan.slices:
            request = part.sequence.request
            error = _failure(part.sequence)
            if error is not None:
                self.scheduler.cancel(request.request_id)
                outputs = [each for each in outputs if each.request_id != request.request_id]
                outputs.append(_refusal(request, error))
        return outputs

    # -- keeping count ---------------------------------------------------------------------------

    def _count(self, plan: Plan) -> None:
        self._counters.num_steps += 1
        now = time.monotonic()
        for part in plan.slices:
            sequence = part.sequence
            sequence.admitted_at = sequence.admitted_at or now
            if sequence.num_generated == 0 and sequence.leader is None:
                of_prompt = min(part.end, sequence.prompt_len) - part.start
                self._counters.num_prompt_tokens += max(0, of_prompt)

    def _spent(self, plan: Plan) -> Cost:
        cost = self.cost.of(plan)
        self._counters.num_multiply_adds += cost.multiply_adds
        self._counters.num_bytes_read += cost.bytes_read
        return cost

    def _told(self, plan: Plan, cost: Cost, duration_s: float) -> Step:
        """Slices before a prompt's end are told one by one; a preempted sequence begins anew."""
        prompt_slices = [
            PromptSlice(part.sequence.arrival, part.count)
            for part in plan.slices
            if part.start < part.sequence.prompt_len
        ]
        stats = self.scheduler.stats()
        shares = self.limits.shares(*cost, duration_s) if self.limits else None
        return Step(
            number=self._counters.num_steps,
            ended_at=time.time(),
            duration_s=duration_s,
            token_budget=self.scheduler.token_budget,
            num_decoding=plan.num_tokens - sum(part.num_tokens for part in prompt_slices),
            prompt_slices=prompt_slices,
            num_running=stats.num_running,
            num_waiting=stats.num_waiting + self.grammars.num_waiting,
            num_blocks_used=stats.num_blocks_used,
            num_multiply_adds=cost.multiply_adds,
            num_bytes_read=cost.bytes_read,
            arithmetic_share=shares.arithmetic if shares else None,
            bandwidth_share=shares.bandwidth if shares else None,
        )

    def _unread(self, part: Slice, result: SliceResult) -> list[TokenLogprobs]:
        """Those not handed out before: after a preemption some are computed again."""
        if not part.sequence.reads_prompt:
            return []
        known = part.sequence.num_prompt_read - part.start
        part.sequence.num_prompt_read += max(0, len(result.prompt_logprobs) - known)
        return result.prompt_logprobs[max(0, known) :]


def _decides_what_is_next(plan: Plan) -> bool:
    """The tokens that a step draws must be known before the next one is planned: a grammar waits
    for one of them, and may force several to follow; or a watermark depends on it.
    """
    return any(
        part.emits and (part.sequence.constraint or part.sequence.request.sampling.watermark)
        for part in plan.slices
    )


def _settle_end(sequence: Sequence, ahead: list[int]) -> None:
    """A text that lacks nothing but its end token was not cut by its length."""
    if sequence.finish_reason is FinishReason.LENGTH and sequence.constraint is not None:
        rest = [*ahead, *constraint_of(sequence).forced]
        if rest and rest[0] in sequence.end_token_ids:
            sequence.finish_reason = FinishReason.STOP


def _failure(sequence: Sequence) -> InvalidRequest | None:
    grammar = sequence.request.sampling.grammar
    if grammar is None or sequence.finish_reason is FinishReason.CANCELLED:
        return None
    return constraint_of(sequence).failure(grammar.param)


def _refusal(request: Request, error: BaseException) -> Output:
    if isinstance(error, InvalidRequest):
        refusal = Refusal(message=error.message, param=error.param, remedy=error.remedy)
    else:
        log.error(
            "the grammar of request %s cannot be compiled", request.request_id, exc_info=error
        )
        refusal = Refusal(message="The grammar cannot be compiled; the server's log says why.")
    return Output(request_id=request.request_id, refusal=refusal)


def _output(sequence: Sequence, result: SliceResult) -> Output:
    is_first = sequence.num_generated == len(result.token_ids)
    return Output(
        request_id=sequence.request.request_id,
        index=sequence.index,
        token_ids=result.token_ids,
        logprobs=result.logprobs,
        prompt_logprobs=result.prompt_logprobs,
        finish_reason=sequence.finish_reason,
        stop_token_id=sequence.stop_token_id,
        num_cached=sequence.num_cached if is_first else None,
        admitted_at=sequence.admitted_at if is_first else None,
        embedding=result.embedding,
    )
