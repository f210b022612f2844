"""What every worker shares: tasks come in on standard input, times go out on standard output.

Only the standard library is used, since each engine brings an environment of its own.

A worker says one JSON line when its engine is ready, {"version", "settings"}. Then it answers each
line that it reads, {"tasks": [[token ids, max tokens], ...]}, with one of {"seconds", "tokens": how
many each got, "peak_bytes"}. Whatever the engine itself prints goes to standard error.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CONTEXT_LEN = 2048  # tokens of prompt and output together that every engine must be able to hold
MAX_STREAMS = 64  # sequences that every engine must be able to hold


class Engine(Protocol):
    """An engine that has loaded its model."""

    version: str
    settings: dict[str, Any]
    """What was set that is not the engine's default, by the engine's own names."""

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """Answer all of them at once, greedily and to the full length, end tokens or not; how many
        tokens each got.
        """


@dataclass(frozen=True)
class Job:
    """Which model to load, in the engine's own format, with what kind of weights."""

    model: Path
    weights: str
    threads: int


def work(load: Callable[[Job], Engine]) -> None:
    """Load the engine that the command line asks for and serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--threads", type=int, required=True)
    job = Job(**vars(parser.parse_args()))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    answers = _claim_stdout()
    engine = load(job)
    answers(version=engine.version, settings=engine.settings)
    for line in sys.stdin:
        tasks = json.loads(line)["tasks"]
        prompts, max_tokens = [task[0] for task in tasks], [task[1] for task in tasks]
        start = time.perf_counter()
        tokens = engine.generate(prompts, max_tokens)
        answers(seconds=time.perf_counter() - start, tokens=tokens, peak_bytes=peak_memory())
    sys.stderr.flush()
    os._exit(0)  # some engines take minutes to put their threads away, or never do


def peak_memory() -> int:
    """The most bytes that were resident, of this process and its descendants, each at its peak."""
    session = os.getsid(0)
    return sum(_peak(process) for process in Path("/proc").iterdir() if _is_of(process, session))


def _claim_stdout() -> Callable[..., None]:
    """Keep standard output for answers; what engines print joins standard error."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        kept.write(json.dumps(values) + "\n")
        kept.flush()

    return answer


def _is_of(process: Path, session: int) -> bool:
    try:
        return process.name.isdecimal() and os.getsid(int(process.name)) == session
    except ProcessLookupError:
        return False


def _peak(process: Path) -> int:
    try:
        lines = (process / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
