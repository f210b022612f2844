"""Putting load on a server: clients that wait for their answers, or arrivals that do not."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.bench.client import BenchClient, connect
from penstock.bench.settings import LoadSettings, TargetSettings, WorkloadSettings
from penstock.bench.timing import Summary, Timing, summary
from penstock.bench.workload import Task, Workload
from penstock.vocabulary.errors import SettingsError

DEFAULT_CLIENTS = (4,)

Send = Callable[[Task, float], Awaitable[Timing]]


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """One run: so many clients, or so many requests per second; the other is None."""

    clients: int | None
    rate: float | None
    summary: Summary
    requests: list[Timing]

    @property
    def load(self) -> float:
        return self.clients or self.rate or 0.0


async def closed_loop(send: Send, tasks: Sequence[Task], clients: int) -> list[Timing]:
    """So many clients share the tasks; each sends its next one when its last is answered."""
    queue = iter(tasks)
    began = time.perf_counter()

    async def client() -> list[Timing]:
        return [await send(task, began) for task in queue]

    done = await asyncio.gather(*(client() for _ in range(clients)))
    return [timing for timings in done for timing in timings]


def arrival_times(count: int, rate: float, seed: int) -> list[float]:
    """The seconds at which requests arrive: a Poisson process of so many per second, from 0 on."""
    rng = np.random.default_rng((seed, 2))
    gaps = rng.exponential(1 / rate, count)
    return [float(at) for at in np.cumsum(gaps) - gaps[0]]


async def open_loop(send: Send, tasks: Sequence[Task], times: Sequence[float]) -> list[Timing]:
    """Every task is sent at its time, whether or not the others have been answered."""
    began = time.perf_counter()

    async def arrival(task: Task, at: float) -> Timing:
        await asyncio.sleep(began + at - time.perf_counter())
        return await send(task, began)

    return await asyncio.gather(*map(arrival, tasks, times))


class ServerBench:
    """Measures a server under one load after another."""

    def __init__(
        self, client: BenchClient, workload: Workload, load: LoadSettings, *, seed: int
    ) -> None:
        self._client = client
        self._workload = workload
        self._load = load
        self._seed = seed
        self._round = 0

    async def warm_up(self, clients: int) -> None:
        """Requests that are not counted: `warmup` for each client."""
        tasks = self._next_round()
        wanted = clients * self._load.warmup
        tasks = (tasks * -(-wanted // len(tasks)))[:wanted]
        if tasks:
            await closed_loop(self._client.send, tasks, clients)

    async def run(
        self, *, clients: int | None, rate: float | None, on_request: Callable[[], None]
    ) -> LoadResult:
        """The whole workload, under one load, after a warm-up."""

        async def send(task: Task, began: float) -> Timing:
            timing = await self._client.send(task, began)
            on_request()
            return timing

        await self.warm_up(clients or 1)
        tasks = self._next_round()
        if clients is not None:
            timings = await closed_loop(send, tasks, clients)
        else:
            assert rate is not None
            timings = await open_loop(send, tasks, arrival_times(len(tasks), rate, self._seed))
        return LoadResult(
            clients=clients,
            rate=rate,
            summary=summary(timings, self._load.reading_speeds),
            requests=timings,
        )

    def _next_round(self) -> list[Task]:
        self._round += 1
        return self._workload.round(self._round)


async def bench_server(
    url: str,
    target: TargetSettings,
    workload: WorkloadSettings,
    load: LoadSettings,
    on_start: Callable[[str, int], Callable[[], None]],
) -> tuple[str, list[LoadResult]]:
    """Measure the server at `url` under every load asked for; its model's name, and the results.

    `on_start` hears which load begins and how many requests it has; what it returns is called after
    each of them. Raises `NoSuchServer` if there is nothing to measure.
    """
    async with connect(url, target) as http:
        client = BenchClient(http, target)
        await client.look_around()
        work = Workload(workload, vocab_size=target.vocab_size, max_model_len=client.max_model_len)
        loads = _loads(load, len(work))
        await client.try_out(work.round(0)[0])
        bench = ServerBench(client, work, load, seed=workload.seed)
        results = []
        for name, clients, rate in loads:
            done = on_start(name, len(work))
            results.append(await bench.run(clients=clients, rate=rate, on_request=done))
        return client.model or "", results


def _loads(settings: LoadSettings, num_requests: int) -> list[tuple[str, int | None, float | None]]:
    if settings.rates:
        return [(f"{rate:g} requests/s", None, rate) for rate in settings.rates]
    clients = settings.clients or (min(DEFAULT_CLIENTS[0], num_requests),)
    if max(clients) > num_requests:
        raise SettingsError(
            f"{num_requests} requests leave some of {max(clients)} clients without any.",
            remedy="Give a larger --num-requests.",
        )
    return [(f"{n} client{'s' if n > 1 else ''}", n, None) for n in clients]
