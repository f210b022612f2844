"""A real `penstock serve` with the embedded model, as a subprocess on a free port."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 180


@dataclass
class Served:
    """A running server: where it answers, and its processes."""

    url: str
    process: subprocess.Popen
    log: Path

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url)

    def metric(self, name: str) -> float:
        text = self.client.get("/metrics").text
        return float(re.search(rf"^penstock_{name} (\S+)$", text, re.MULTILINE)[1])

    def is_ready(self) -> bool:
        return self.client.get("/health/ready").status_code == 200

    def engine_pids(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return {int(pid) for file in children for pid in file.read_text().split()}

    def engine_pid(self) -> int:
        [pid] = self.engine_pids()
        return pid

    def num_open(self) -> int:
        """Requests that are being answered, or wait."""
        return len(self.client.get("/admin/requests").json()["requests"])

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No engine gets on, so that no answer ends before a test has done what it wants to."""
        pids = self.engine_pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def penstock_serve(
    directory: Path, *flags: str, environment: Mapping[str, str] = os.environ
) -> Iterator[Served]:
    """A server of the embedded model."""
    with running(directory, "serve", "--port", "0", *flags, environment=environment) as server:
        yield server


@contextlib.contextmanager
def running(
    directory: Path, *command: str, environment: Mapping[str, str] = os.environ
) -> Iterator[Served]:
    """Run a command that serves and wait until it says where; end it if the test has not."""
    log = directory / "serve.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli", *command],
            stdout=stderr,
            stderr=stderr,
            env={**environment, "COLUMNS": "200"},
        )
    try:
        server = Served(_url(process, log), process, log)
        with server.client:
            yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def eventually(holds, timeout_s: float = 100) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not (holding := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holding


def _url(process: subprocess.Popen, log: Path) -> str:
    def found() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"Ready at (http://[\w.:]+)", log.read_text())

    assert eventually(found, START_S), f"not ready in {START_S} s:\n{log.read_text()}"
    return found()[1]
