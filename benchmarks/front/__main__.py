"""What the front process costs and withstands, measured against a real server on loopback.

  python -m benchmarks.front stall      health while 500 streams idle and 1 MB is tokenized
  python -m benchmarks.front streams    processor time of 200 streams at 2,000 tokens a second
  python -m benchmarks.front overload   ten times what the engine can do, and only that, in turns
  python -m benchmarks.front soak       memory after tens of thousands of short requests

The engine is a script that computes nothing, but for `--embedded`. Nothing else should run.
"""

import argparse
import asyncio
import random
import resource
import time
from collections.abc import Callable, Coroutine, Sequence
from statistics import median
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import track

from benchmarks.front.load import READY, WATCH, Answer, ask, completion
from benchmarks.front.overload import overload
from benchmarks.front.scripted_engine import Pace
from benchmarks.front.server import Front, served

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


MEASURES: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, None]]] = {
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
