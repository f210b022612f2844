"""An engine at work in a process of its own, which cannot keep its parent waiting for ever."""

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.environments import ROOT, Unavailable, last_words
from benchmarks.peers.work import Answer
from penstock.bench.workload import Task

_CHUNK = 1 << 16


class EngineProcess:
    """Started on entering, gone on leaving, with all its descendants.

    `hello` is what the engine said of itself when it was ready, `ready_s` how long that took from
    the start of its interpreter. Everything raises `Unavailable`.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], log: Path, ready_limit_s: float
    ) -> None:
        self._command = command
        self._variables = variables
        self._log = log
        self._ready_limit_s = ready_limit_s
        self._rest = b""

    def __enter__(self) -> "EngineProcess":
        start = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,  # nothing is left to flush into a pipe that broke
                start_new_session=True,
            )
        try:
            self.hello = self._read("was ready", self._ready_limit_s)
        except BaseException:
            self._end()
            raise
        self.ready_s = time.perf_counter() - start
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def ask(self, tasks: list[Task], limit_s: float) -> Answer:
        """Have one batch answered."""
        line = json.dumps({"tasks": [[task.prompt, task.max_tokens] for task in tasks]})
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            raise self._died("answered") from None
        answer = Answer(**self._read("answered", limit_s))
        wanted = [task.max_tokens for task in tasks]
        if answer.tokens != wanted:
            raise Unavailable(
                f"gave {sum(answer.tokens)} tokens where {sum(wanted)} were asked for"
            )
        return answer

    def _read(self, what: str, limit_s: float) -> dict[str, Any]:
        """The next line, as JSON."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise Unavailable(f"took more than {limit_s:g} s before it {what}")
                chunk = os.read(self._process.stdout.fileno(), _CHUNK)
                if not chunk:
                    raise self._died(what)
                self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        values: dict[str, Any] = json.loads(line)
        return values

    def _died(self, what: str) -> Unavailable:
        status = self._process.wait()
        return Unavailable(f"ended ({status}) before it {what}:\n{last_words(self._log)}")

    def _end(self) -> None:
        """Whoever does not leave when asked is made to; descendants share the session's group."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
