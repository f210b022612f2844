"""Measuring an engine in this very process: one stream, and everything at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from penstock.bench.settings import LatencySettings
from penstock.bench.timing import ANSWERED, Timing, percentile
from penstock.bench.workload import Task, random_prompt
from penstock.vocabulary.sampling_params import SamplingParams

if TYPE_CHECKING:
    from penstock.engine.llm import LLM, Prompt

WARMUP_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One stream with a prompt of one length: the medians of its runs, and the runs."""

    prompt_len: int
    output_len: int
    first_token_s: float
    inter_token_p50_s: float
    inter_token_p90_s: float
    inter_token_p99_s: float
    end_to_end_s: float
    tokens_per_s: float
    runs: list[Timing]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One pass over a whole workload."""

    duration_s: float
    num_requests: int
    num_prompt_tokens: int
    num_output_tokens: int

    @property
    def output_tokens_per_s(self) -> float:
        return self.num_output_tokens / self.duration_s

    @property
    def total_tokens_per_s(self) -> float:
        return (self.num_prompt_tokens + self.num_output_tokens) / self.duration_s

    @property
    def requests_per_s(self) -> float:
        return self.num_requests / self.duration_s


def measure_latency(
    llm: "LLM", settings: LatencySettings, prompt_len: int, on_run: Callable[[], None]
) -> Latency:
    """Run one stream after another. No two runs share a prompt, so no prefix is cached."""
    rng = np.random.default_rng((settings.seed, prompt_len))
    runs = []
    began = time.perf_counter()
    for _ in range(settings.warmup + settings.repeats):
        prompt = random_prompt(rng, prompt_len, llm.resolved.vocab_size)
        runs.append(_one_stream(llm, Task(prompt, settings.output_len), began))
        on_run()
    return latency_of(runs[settings.warmup :], prompt_len)


def latency_of(runs: list[Timing], prompt_len: int) -> Latency:
    """The medians of some runs of one stream."""

    def gap(percent: float) -> float:
        return median(percentile(run.inter_token_s, percent) for run in runs)

    return Latency(
        prompt_len=prompt_len,
        output_len=runs[0].num_output_tokens,
        first_token_s=median(run.first_token_s for run in runs),
        inter_token_p50_s=gap(50),
        inter_token_p90_s=gap(90),
        inter_token_p99_s=gap(99),
        end_to_end_s=median(run.end_s for run in runs),
        tokens_per_s=median(len(run.inter_token_s) / sum(run.inter_token_s) for run in runs),
        runs=runs,
    )


def measure_throughput(llm: "LLM", tasks: list[Task]) -> Throughput:
    """Hand in all tasks at once and wait for the last."""
    began = time.perf_counter()
    results = llm.generate(
        [_prompt(task) for task in tasks], [_params(task.max_tokens) for task in tasks]
    )
    return Throughput(
        duration_s=time.perf_counter() - began,
        num_requests=len(results),
        num_prompt_tokens=sum(len(result.prompt_token_ids) for result in results),
        num_output_tokens=sum(len(result.outputs[0].token_ids) for result in results),
    )


def warm_up(llm: "LLM", tasks: list[Task]) -> None:
    """Let the first costs fall due: a few tokens of each task."""
    if tasks:
        llm.generate([_prompt(task) for task in tasks], _params(WARMUP_TOKENS), use_tqdm=False)


def medians(passes: Sequence[Throughput]) -> dict[str, float]:
    """The rates of several passes, each rate's median."""
    return {
        "requests_per_s": median(each.requests_per_s for each in passes),
        "output_tokens_per_s": median(each.output_tokens_per_s for each in passes),
        "total_tokens_per_s": median(each.total_tokens_per_s for each in passes),
    }


def _one_stream(llm: "LLM", task: Task, began: float) -> Timing:
    start = time.perf_counter()
    arrivals = []
    num_tokens = 0
    for delta in llm.stream(_prompt(task), _params(task.max_tokens)):
        num_tokens += len(delta.token_ids)
        if delta.token_ids:
            arrivals.append(time.perf_counter() - start)
    return Timing(
        outcome=ANSWERED,
        start_s=start - began,
        end_s=time.perf_counter() - start,
        arrivals_s=arrivals,
        num_prompt_tokens=len(task.prompt),
        num_output_tokens=num_tokens,
    )


def _prompt(task: Task) -> "Prompt":
    return task.prompt if isinstance(task.prompt, str) else {"prompt_token_ids": task.prompt}


def _params(max_tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True)
