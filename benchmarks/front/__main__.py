"""What the front process costs and withstands, measured against a real server on loopback.

  python -m benchmarks.front stall      health while 500 streams idle and 1 MB is tokenized
  python -m benchmarks.front streams    processor time of 200 streams at 2,000 tokens a second
  python -m benchmarks.front overload   ten times what the engine can do, for five minutes
  python -m benchmarks.front soak       memory after tens of thousands of short requests

The engine is a script that computes nothing, but for `--embedded`. Nothing else should run.
"""

import argparse
import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from statistics import median, quantiles

import uvloop
from rich.console import Console
from rich.progress import Progress, track

from benchmarks.front.load import READY, WATCH, Answer, ask, completion
from benchmarks.front.scripted_engine import Pace
from benchmarks.front.server import Front, served
from benchmarks.front.stretch import Stretch, stretch

_MIB = 2**20
_WARM_UP_REQUESTS = 4000  # of a soak: until caches are full
console = Console()


async def stall(options: argparse.Namespace) -> None:
    """How long /health/ready takes at most, while the front has hard work to do."""
    idle = Pace(step_s=0.5, max_num_seqs=0)  # it takes requests, and never begins one
    words = random.Random(0)
    text = "".join(words.choice("abcdefghij klmno\n") for _ in range(1_000_000))
    with served(idle, "--max-waiting", "2000", "--max-body-bytes", str(8 * _MIB)) as front:
        stream = completion(stream=True, max_tokens=100)
        streams = [asyncio.create_task(ask(front, stream)) for _ in range(500)]
        await asyncio.sleep(2)
        quiet = [await ask(front, READY) for _ in range(100)]
        long = asyncio.create_task(ask(front, completion(prompt=text, max_tokens=1, stream=True)))
        busy: list[Answer] = []
        ends = time.monotonic() + options.seconds
        while time.monotonic() < ends:
            busy.append(await ask(front, READY))
            await asyncio.sleep(0.002)
        for task in [*streams, long]:
            task.cancel()
        await asyncio.gather(*streams, long, return_exceptions=True)
    for name, answers in (("500 idle streams", quiet), ("and 1 MB being tokenized", busy)):
        assert {answer.status for answer in answers} == {200}
        times = [1000 * answer.whole_s for answer in answers]
        console.print(f"{name}: median {median(times):.1f} ms, longest {max(times):.1f} ms")


async def streams(options: argparse.Namespace) -> None:
    """Processor time of the front for 200 streams of 10 tokens a second, and for watchers."""
    pace = Pace(step_s=0.1, max_num_seqs=200)
    num_tokens = int(10 * options.seconds) + 60
    with served(pace) as front:
        request = completion(stream=True, max_tokens=num_tokens)
        tasks = [asyncio.create_task(ask(front, request)) for _ in range(200)]
        watchers = [asyncio.create_task(ask(front, WATCH)) for _ in range(options.watchers)]
        await asyncio.sleep(3)
        began, cpu_s = time.monotonic(), front.cpu_s()
        await asyncio.sleep(options.seconds)
        share = (front.cpu_s() - cpu_s) / (time.monotonic() - began)
        answers = await asyncio.gather(*tasks)
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    assert all(answer.num_events >= num_tokens for answer in answers), "tokens are missing"
    watched = f", {options.watchers} watching" if options.watchers else ""
    console.print(f"200 streams, 2,000 tokens/s{watched}: {100 * share:.1f} % of one core")


async def overload(options: argparse.Namespace) -> None:
    """Throughput, refusals, latencies and memory at ten times the load that can be served."""
    pace = None if options.embedded else Pace(step_s=0.05, max_num_seqs=16)
    flags = ["--max-waiting", "32", *(["--max-num-seqs", "16"] if options.embedded else [])]
    # long answers from the embedded model, or this client could not offer ten times what it can do
    num_tokens = 512 if options.embedded else 32
    request = completion(max_tokens=num_tokens)
    offered_s = options.seconds
    with served(pace, *flags) as front:
        best = await _best(front, request, num_tokens, seconds=offered_s / 5)
        memory, samples = front.resident_bytes(), []

        async def look() -> None:
            while True:
                await asyncio.sleep(offered_s / 10)
                samples.append(front.resident_bytes())

        watcher = asyncio.create_task(look())
        looking = asyncio.create_task(stretch(front, after_s=5, seconds=offered_s - 5))
        answers = await _open_loop(front, request, rate=10 * best, seconds=offered_s)
        watcher.cancel()
        rate = _rate(f"offered {10 * best:.0f}/s", await looking, num_tokens)
        # machines that are shared do not stay as fast as they were
        again = await _best(front, request, num_tokens, seconds=offered_s / 5)
    console.print(
        f"under overload {rate / best:.1%} of the best before, {rate / again:.1%} of after"
    )
    console.print(f"statuses: {dict(Counter(answer.status for answer in answers))}")
    served_ = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 429]
    console.print(f"429 with Retry-After: {sum(a.has_retry_after for a in refused)}")
    _times("admitted, whole answer", [answer.whole_s for answer in served_])
    _times("refused", [answer.whole_s for answer in refused])
    grown = [f"{(sample - memory) / _MIB:+.1f}" for sample in samples]
    console.print(f"front's memory over its start, MiB: {', '.join(grown)}")


async def soak(options: argparse.Namespace) -> None:
    """Bytes that either process's resident memory grows by, for each short request."""
    pace = None if options.embedded else Pace(step_s=0.002, max_num_seqs=64)
    batch = options.requests // 10
    # a KV cache is memory from the moment it is first written: a small one is so before we count
    with served(pace, "--kv-cache-gib", "0.02") as front:
        chance = random.Random(0)
        request = [
            completion(prompt="x" * chance.randrange(1, 60), max_tokens=4) for _ in range(64)
        ]
        sizes: dict[str, list[int]] = {"front": [], "engine": []}
        await _many(front, request, _WARM_UP_REQUESTS)
        for number in track(range(11), description="Requests", transient=True):
            if number:
                await _many(front, request, batch)
            sizes["front"].append(front.resident_bytes())
            sizes["engine"].append(front.engine_resident_bytes())
    for name, seen in sizes.items():
        grown = (seen[-1] - seen[0]) / (10 * batch)
        console.print(f"{10 * batch} requests, {name}: {grown:.1f} bytes each; MiB: ", end="")
        console.print(", ".join(f"{size / _MIB:.2f}" for size in seen))


async def _many(front: Front, requests: Sequence[bytes], count: int) -> None:
    left = iter(range(count))

    async def client() -> None:
        for number in left:
            answer = await ask(front, requests[number % len(requests)])
            assert answer.status == 200, answer

    await asyncio.gather(*(client() for _ in range(32)))


async def _best(front: Front, request: bytes, num_tokens: int, *, seconds: float) -> float:
    """Answers a second to clients that wait for each; the start is not counted."""
    looking = asyncio.create_task(stretch(front, after_s=seconds / 5, seconds=seconds * 4 / 5))
    await _closed_loop(front, request, clients=32, seconds=seconds)
    return _rate("32 clients in a closed loop", await looking, num_tokens)


async def _closed_loop(front: Front, request: bytes, *, clients: int, seconds: float) -> None:
    ends = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < ends:
            answer = await ask(front, request)
            assert answer.status == 200, answer

    await asyncio.gather(*(client() for _ in range(clients)))


def _rate(what: str, seen: Stretch, num_tokens: int) -> float:
    """Answers a second, of so many tokens each; and who took the processors meanwhile.

    What the engine computes in a second of theirs tells whether the machine stays equally fast.
    """
    rate = seen.num_tokens / num_tokens / seen.seconds
    speed = seen.num_tokens / max(seen.cpu_s["engine"], 0.01)
    shares = ", ".join(f"{who} {cpu_s / seen.seconds:.0%}" for who, cpu_s in seen.cpu_s.items())
    console.print(f"{what}: {rate:.2f} answers/s; of one core: {shares} ({speed:.0f} tokens/s)")
    return rate


async def _open_loop(front: Front, request: bytes, *, rate: float, seconds: float) -> list[Answer]:
    """Requests at random times, whatever becomes of those before."""
    chance = random.Random(0)
    tasks: list[asyncio.Task[Answer]] = []
    began = due = shown = time.monotonic()
    with Progress(transient=True, refresh_per_second=1) as progress:
        bar = progress.add_task("Overload", total=seconds)
        while (now := time.monotonic()) < began + seconds:
            if due > now:
                await asyncio.sleep(due - now)
            tasks.append(asyncio.create_task(ask(front, request)))
            due += chance.expovariate(rate)
            if now - shown > 1:
                shown = now
                progress.update(bar, completed=now - began)
    return await asyncio.gather(*tasks)


def _times(what: str, values: Sequence[float]) -> None:
    if len(values) < 2:
        return
    cuts = quantiles(values, n=100)
    console.print(f"{what}: median {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, max {max(values):.3f} s")


MEASURES: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "stall": stall,
    "streams": streams,
    "overload": overload,
    "soak": soak,
}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.front",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--seconds", type=float, help="of measuring; overload: 300, others: 10")
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak")
    parser.add_argument("--watchers", type=int, default=0, help="of the steps, beside the streams")
    parser.add_argument("--embedded", action="store_true", help="the embedded model as engine")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection for each request
    options.seconds = options.seconds or (300 if options.what == "overload" else 10)
    uvloop.run(MEASURES[options.what](options))


if __name__ == "__main__":
    main()
