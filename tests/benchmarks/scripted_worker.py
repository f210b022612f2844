"""A worker whose engine does what its weights are called."""

import sys
import time
from typing import Any

from benchmarks.peers.workers.measuring import Job, work


class Scripted:
    """`works`, `sleeps`, `breaks`, `stops-early` or `never-starts`."""

    version = "1.0"

    def __init__(self, job: Job) -> None:
        self.settings: dict[str, Any] = {"weights": job.weights}
        self._behaviour = job.weights
        print("engines print what they like where they like")
        if job.weights == "never-starts":
            sys.exit("no such instruction set")

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        if self._behaviour == "breaks":
            raise MemoryError("too many of them")
        if self._behaviour == "sleeps":
            time.sleep(60)
        if self._behaviour == "stops-early":
            return [1 for _ in prompts]
        time.sleep(0.005 * max(max_tokens))  # as an engine takes longer for more
        return max_tokens


if __name__ == "__main__":
    work(Scripted)
