"""The loop's body: one step computes what the scheduler planned and hands out what came of it."""

import secrets
import time
from dataclasses import asdict, dataclass, field

from penstock.engine.cost import CostModel
from penstock.engine.runner import Runner, SliceResult
from penstock.scheduling.scheduler import Scheduler
from penstock.scheduling.sequence import Plan, Sequence, Slice
from penstock.vocabulary.messages import Cancel, EngineStats, Output, Request, TokenLogprobs


@dataclass(slots=True)
class _Counters:
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_multiply_adds: int = 0
    num_bytes_read: int = 0
    busy_s: float = 0.0


@dataclass(slots=True)
class Engine:
    """Owns the loop. `add` and `cancel` between steps, `step` while `has_work`.

    Requests have been checked against the model (`engine/checks.py`) before they come here.
    """

    scheduler: Scheduler
    runner: Runner
    cost: CostModel
    max_model_len: int
    end_token_ids: frozenset[int]
    seed: int | None = None
    _counters: _Counters = field(default_factory=_Counters)

    def add(self, request: Request) -> None:
        """Queue a request's completions."""
        params = request.sampling
        seed = self._seed(params.seed)
        prompt_len = len(request.prompt_token_ids)
        room = self.max_model_len - prompt_len
        self.scheduler.add(
            [
                Sequence(
                    request=request,
                    index=index,
                    max_len=prompt_len + min(params.max_tokens or room, room),
                    end_token_ids=frozenset() if params.ignore_eos else self.end_token_ids,
                    seed=seed,
                )
                for index in range(params.n)
            ]
        )

    def cancel(self, cancel: Cancel) -> None:
        """Free what the request holds."""
        self.scheduler.cancel(cancel.request_id, cancel.index)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def step(self) -> list[Output]:
        """One turn: plan, compute, commit. One output per completion that something happened to."""
        began = time.perf_counter()
        plan = self.scheduler.schedule()
        if not plan.slices:
            return []
        self._count(plan)
        results = self.runner.run(plan)
        self._counters.busy_s += time.perf_counter() - began
        self.scheduler.commit(plan, [result.token_ids for result in results])
        outputs = []
        for part, result in zip(plan.slices, results, strict=True):
            prompt_logprobs = self._unread(part, result)
            if result.token_ids or prompt_logprobs:
                result.prompt_logprobs = prompt_logprobs
                outputs.append(_output(part.sequence, result))
        return outputs

    def stats(self) -> EngineStats:
        """The engine at this moment."""
        return self.scheduler.stats(**asdict(self._counters))

    def _seed(self, asked: int | None) -> int:
        if asked is not None:
            return asked
        return self.seed if self.seed is not None else secrets.randbits(63)

    def _count(self, plan: Plan) -> None:
        multiply_adds, bytes_read = self.cost.of(plan)
        self._counters.num_steps += 1
        self._counters.num_multiply_adds += multiply_adds
        self._counters.num_bytes_read += bytes_read
        self._counters.num_generated_tokens += sum(part.emits for part in plan.slices)
        for part in plan.slices:
            if part.sequence.num_generated == 0 and part.sequence.leader is None:
                self._counters.num_prompt_tokens += part.count

    def _unread(self, part: Slice, result: SliceResult) -> list[TokenLogprobs]:
        """Those not handed out before: after a preemption some are computed again."""
        if not part.sequence.reads_prompt:
            return []
        known = part.sequence.num_prompt_read - part.start
        part.sequence.num_prompt_read += max(0, len(result.prompt_logprobs) - known)
        return result.prompt_logprobs[max(0, known) :]


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
    )
