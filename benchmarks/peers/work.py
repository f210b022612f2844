"""What every engine is asked to do, and how the times it takes become rates.

An engine needs only to answer a batch of prompts greedily with so many tokens each: the time to a
first token is that of an answer of one token, and decoding is what the rest of a long answer adds.
So engines that stream and engines that do not are measured alike. No prompt is sent twice, so no
cache of prefixes helps anyone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.peers.workers.measuring import CONTEXT_LEN, MAX_STREAMS
from penstock.bench.settings import WorkloadSettings
from penstock.bench.workload import Task, Workload, random_prompt
from penstock.vocabulary.errors import SettingsError

SEED = 0
FEWER_REQUESTS = 24  # of a mix that would take an engine too long otherwise


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One batch, answered: how long it took, and how many tokens each request got."""

    seconds: float
    tokens: list[int]
    peak_bytes: int


Round = list[list[Task]]
"""Batches that are answered one after the other, and measure something together."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One measurement. Every round measures the same; `rate` makes tokens per second of them.

    `shorter` is what to ask of an engine that would take too long.
    """

    name: str
    title: str
    warmup: Round
    rounds: list[Round]
    rate: Callable[[Sequence[Sequence[Answer]]], float | None]
    shorter: "Work | None" = None

    @property
    def num_requests(self) -> int:
        """How many are answered at once."""
        return len(self.rounds[0][-1])


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    repeats: int = 3
    one_stream_len: int = 64
    prompt_lens: tuple[int, ...] = (512, 1024)
    num_streams: int = 32
    streams_len: int = 64
    num_mixed: int = MAX_STREAMS


FULL = Extent()
QUICK = Extent(
    repeats=1, one_stream_len=16, prompt_lens=(512,), num_streams=8, streams_len=16, num_mixed=8
)
"""Only shows that everything works."""


class Prompts:
    """Random tokens, never the same twice."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(SEED)

    def batch(self, count: int, prompt_len: int, max_tokens: int) -> list[Task]:
        """So many requests of one length."""
        return [
            Task(random_prompt(self._rng, prompt_len, self._vocab_size), max_tokens)
            for _ in range(count)
        ]


def all_work(vocab_size: int, extent: Extent) -> list[Work]:
    """Every measurement, in the order in which they are made."""
    prompts = Prompts(vocab_size)
    return [
        decoding(prompts, 1, 32, extent.one_stream_len, extent.repeats),
        *(first_token(prompts, length, extent.repeats) for length in extent.prompt_lens),
        decoding(prompts, extent.num_streams, 16, extent.streams_len, extent.repeats),
        mixed(vocab_size, extent.num_mixed),
    ]


def chosen(works: Sequence[Work], names: Sequence[str]) -> list[Work]:
    """Those asked for by name; all, if none is. Raises `SettingsError` for an unknown name."""
    known = [work.name for work in works]
    for name in names:
        if name not in known:
            raise SettingsError(
                f"There is no work {name!r}.", remedy=f"Choose among {', '.join(known)}."
            )
    return [work for work in works if not names or work.name in names]


def decoding(
    prompts: Prompts, num_streams: int, prompt_len: int, output_len: int, repeats: int
) -> Work:
    """Each round has answers of one token, then whole ones; tokens per second after the first, or
    None where noise drowns the difference.
    """

    def rate(rounds: Sequence[Sequence[Answer]]) -> float | None:
        first = median(answers[0].seconds for answers in rounds)
        whole = median(answers[1].seconds for answers in rounds)
        return num_streams * (output_len - 1) / (whole - first) if whole > first else None

    return Work(
        name="one-stream" if num_streams == 1 else "streams",
        title="one stream" if num_streams == 1 else f"{num_streams} streams",
        warmup=[prompts.batch(num_streams, prompt_len, length) for length in (1, 4)],
        rounds=[
            [prompts.batch(num_streams, prompt_len, length) for length in (1, output_len)]
            for _ in range(repeats)
        ],
        rate=rate,
    )


def first_token(prompts: Prompts, prompt_len: int, repeats: int) -> Work:
    """One prompt; its tokens per second until the first token of the answer."""
    return Work(
        name=f"prompt-{prompt_len}",
        title=f"prompt of {prompt_len}",
        warmup=[prompts.batch(1, prompt_len, 1)],
        rounds=[[prompts.batch(1, prompt_len, 1)] for _ in range(repeats)],
        rate=lambda rounds: prompt_len / median(answers[0].seconds for answers in rounds),
    )


def mixed(vocab_size: int, num_requests: int) -> Work:
    """Requests as long as those that people share, all at once; output tokens per second."""
    workload = Workload(
        WorkloadSettings(num_requests=num_requests, seed=SEED),
        vocab_size=vocab_size,
        max_model_len=CONTEXT_LEN,
    )
    return Work(
        name="mixed",
        title=f"{num_requests} mixed",
        warmup=[[Task(task.prompt, 4) for task in workload.round(0)[:8]]],
        rounds=[[workload.round(1)]],
        rate=lambda rounds: sum(rounds[0][0].tokens) / rounds[0][0].seconds,
        shorter=mixed(vocab_size, FEWER_REQUESTS) if num_requests > FEWER_REQUESTS else None,
    )


def expected_seconds(work: Work, prompt_rate: float, decode_rate: float) -> float:
    """How long a round would take if prompts and outputs were computed one after the other."""
    tasks = [task for batch in work.rounds[0] for task in batch]
    num_prompt = sum(len(task.prompt) for task in tasks)
    return num_prompt / prompt_rate + sum(task.max_tokens for task in tasks) / decode_rate
