"""What refusing ten times the load costs those who are served, and those who are refused.

A machine that is shared does not stay equally fast: a minute later the same load may go half as
fast again. So the engine is kept busy throughout, the flood is turned on and off every few seconds,
and turns are compared with their neighbours.
"""

import argparse
import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, quantiles, stdev

from rich.console import Console
from rich.progress import track

from benchmarks.front.load import Answer, ask, completion
from benchmarks.front.scripted_engine import Pace
from benchmarks.front.server import Front, served
from benchmarks.front.stretch import Stretch, stretch

MAX_NUM_SEQS, MAX_WAITING = 16, 32
_TURN_S, _SETTLE_S = 5.0, 0.5
_MIB = 2**20
console = Console()


@dataclass
class Load:
    """Clients that wait for each answer, as many as the server takes, and a flood upon them."""

    front: Front
    request: bytes
    answers: list[Answer] = field(default_factory=list)
    _tasks: list[asyncio.Task[object]] = field(default_factory=list)

    async def _ask(self) -> Answer:
        answer = await ask(self.front, self.request)
        self.answers.append(answer)
        return answer

    async def _client(self) -> None:
        while True:
            if (await self._ask()).status == 429:
                await asyncio.sleep(0.3)

    @contextlib.asynccontextmanager
    async def clients(self) -> AsyncIterator[None]:
        """The engine and its queue are full as long as this lasts."""
        for _ in range(MAX_NUM_SEQS + MAX_WAITING):
            self._tasks.append(asyncio.create_task(self._client()))
        yield
        ended = [task for task in self._tasks if task.done()]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*ended)  # to fail if one of them did
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def flood(self, rate: float) -> None:
        """Requests at random times, so many a second, whatever becomes of those before."""
        due = time.monotonic()
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            self._tasks.append(asyncio.create_task(self._ask()))
            due += random.expovariate(rate)


async def overload(options: argparse.Namespace) -> None:
    """Throughput, refusals, latencies and memory with and without ten times the load."""
    pace = None if options.embedded else Pace(step_s=0.05, max_num_seqs=MAX_NUM_SEQS)
    flags = ["--max-waiting", str(MAX_WAITING)]
    flags += ["--max-num-seqs", str(MAX_NUM_SEQS)] if options.embedded else []
    # long answers from the embedded model, or this client could not offer ten times what it can do
    num_tokens = 512 if options.embedded else 32
    pairs: list[tuple[Stretch, Stretch]] = []
    with served(pace, *flags) as front:
        load = Load(front, completion(max_tokens=num_tokens))
        async with load.clients():
            await asyncio.sleep(_TURN_S)
            rate = 10 * (await _turn(load, None)).num_tokens / num_tokens / _TURN_S
            memory = [front.resident_bytes()]
            for _ in track(range(int(options.seconds / _TURN_S)), "Overload", transient=True):
                pairs.append(await _pair(load, rate))
                memory.append(front.resident_bytes())
    _report(pairs, rate, num_tokens)
    _report_answers(load.answers)
    grown = [f"{(size - memory[0]) / _MIB:+.1f}" for size in memory[:: max(len(memory) // 10, 1)]]
    console.print(f"front's memory over its start, MiB: {', '.join(grown)}")


async def _pair(load: Load, rate: float) -> tuple[Stretch, Stretch]:
    """A turn with the flood and one without, in either order."""
    seen = {}
    for flooded in random.sample((True, False), 2):
        seen[flooded] = await _turn(load, rate if flooded else None)
    return seen[True], seen[False]


async def _turn(load: Load, rate: float | None) -> Stretch:
    flood = asyncio.create_task(load.flood(rate)) if rate else None
    seen = await stretch(load.front, after_s=_SETTLE_S, seconds=_TURN_S)
    if flood:
        flood.cancel()
    return seen


def _report(pairs: Sequence[tuple[Stretch, Stretch]], rate: float, num_tokens: int) -> None:
    flooded, quiet = zip(*pairs, strict=True)
    _rate("what is served waits its turn", quiet, num_tokens)
    _rate(f"and {rate:.0f} more are asked a second", flooded, num_tokens)
    shares = [
        (with_.num_tokens / with_.seconds) / (without.num_tokens / without.seconds)
        for with_, without in pairs
    ]
    error = stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    console.print(
        f"kept under overload: {mean(shares):.1%} ± {error:.1%} (mean of {len(shares)} pairs of "
        f"turns of {_TURN_S:.0f} s and its standard error; median {median(shares):.1%})"
    )


def _rate(what: str, seen: Sequence[Stretch], num_tokens: int) -> None:
    """Answers a second, of so many tokens each; and who took the processors meanwhile."""
    seconds = sum(each.seconds for each in seen)
    rate = sum(each.num_tokens for each in seen) / num_tokens / seconds
    shares = ", ".join(
        f"{who} {sum(each.cpu_s[who] for each in seen) / seconds:.0%}" for who in seen[0].cpu_s
    )
    console.print(f"{what}: {rate:.2f} answers/s; of one core: {shares}")


def _report_answers(answers: Sequence[Answer]) -> None:
    console.print(f"statuses: {dict(Counter(answer.status for answer in answers))}")
    served_ = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    console.print(f"429 with Retry-After: {sum(answer.has_retry_after for answer in refused)}")
    _times("admitted, whole answer", [answer.whole_s for answer in served_])
    _times("refused", [answer.whole_s for answer in refused])


def _times(what: str, values: Sequence[float]) -> None:
    if len(values) < 2:
        return
    cuts = quantiles(values, n=100)
    console.print(f"{what}: median {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, max {max(values):.3f} s")
