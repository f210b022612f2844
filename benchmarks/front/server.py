"""`penstock serve` around a scripted engine: python -m benchmarks.front.server [flags of serve]."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.front.scripted_engine import VARIABLE, Pace

_START_S = 60
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True)
class Front:
    """A front process that listens."""

    host: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Processor time it has taken so far, in user and system mode."""
        return _cpu_s(self.pid)

    def engine_cpu_s(self) -> float:
        """The same of the engine process."""
        return _cpu_s(self._engine_pid())

    def resident_bytes(self) -> int:
        """What the front itself keeps in memory."""
        return _resident_bytes(self.pid)

    def engine_resident_bytes(self) -> int:
        """What the engine process keeps in memory."""
        return _resident_bytes(self._engine_pid())

    def _engine_pid(self) -> int:
        """The front's only child."""
        [engine] = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(engine)


def _cpu_s(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


@contextlib.contextmanager
def served(pace: Pace | None, *flags: str) -> Iterator[Front]:
    """A server with a scripted engine of that pace, or with the embedded model."""
    module = "penstock.cli" if pace is None else "benchmarks.front.server"
    script = {} if pace is None else {VARIABLE: msgspec.json.encode(pace).decode()}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *["serve"][: pace is None], "--port", "0", *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **script, "COLUMNS": "200"},
    )
    try:
        host, port = _address(process)
        yield Front(host, port, process.pid)
    finally:
        process.terminate()
        process.communicate()


def _address(process: "subprocess.Popen[bytes]") -> tuple[str, int]:
    assert process.stderr is not None
    deadline, said = time.monotonic() + _START_S, ""
    while time.monotonic() < deadline and process.poll() is None:
        said += os.read(process.stderr.fileno(), 65536).decode()
        if found := re.search(r"Ready at http://([\w.]+):(\d+)", said):
            return found[1], int(found[2])
    raise SystemExit(f"The server did not start:\n{said}")


def main() -> None:
    """Have the front start the script where it would start an engine."""
    from penstock.cli.app import app
    from penstock.engine import engine_process

    engine_process.COMMAND = (sys.executable, "-m", "benchmarks.front.scripted_engine")
    app(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
