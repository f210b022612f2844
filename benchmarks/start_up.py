"""How long `penstock serve` takes until it is ready, and what memory it needs beside the weights.

Usage: python -m benchmarks.start_up MODEL [--weights int8] [--repeats 3]

Measures a start that packs the checkpoint, one that finds the packed weights in the cache, and one
from a snapshot. Files are in the page cache, as they are after a download. Memory is that of the
engine process after one request, without weights, keys and values; a model of some 100 million
parameters or more has room for enough of these to be told by it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

_MIB = 2**20
_LEAST_CACHE_BYTES = 512 * _MIB
"""Nothing else that is not a file takes so many addresses."""
_COMMAND = [sys.executable, "-m", "penstock.cli"]


class Started(NamedTuple):
    """One start: seconds until requests are welcome, what the engine says of them, and memory."""

    ready_s: float
    note: str
    beside_weights_bytes: int
    mapped_weights_bytes: int


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> Started:
    """Serve, ask for a few tokens, look at the engine process, and stop."""
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [*_COMMAND, "serve", "--port", "0", *arguments],
            stderr=log,
            stdout=log,
            env={**environment, "COLUMNS": "200"},
        )
        try:
            url = _ready(process, log.fileno())
            ready_s = time.monotonic() - began
            _complete(url)
            beside, mapped = _memory(_engine_pid(process.pid))
        finally:
            process.terminate()
            process.wait()
        text = os.pread(log.fileno(), _MIB, 0).decode()
        note = re.search(r"^Start: (.*)$", text, re.MULTILINE)
        return Started(ready_s, note[1] if note else "", beside, mapped)


def _ready(process: subprocess.Popen[bytes], log: int) -> str:
    while process.poll() is None:
        text = os.pread(log, _MIB, 0).decode()
        if found := re.search(r"Ready at (http://\S+)", text):
            return found[1]
        time.sleep(0.01)
    raise SystemExit(os.pread(log, _MIB, 0).decode())


def _complete(url: str) -> None:
    body = json.dumps({"prompt": "def add(a, b):", "max_tokens": 16, "ignore_eos": True}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/completions", body, headers)):
        pass


def _engine_pid(pid: int) -> int:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return next(int(child) for file in children for child in file.read_text().split())


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes that are neither mapped weights nor keys and values, and those of weights."""
    resident = {"weights": 0, "cache": 0, "other": 0}
    kind = "other"
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)", line):
            size = int(found[2], 16) - int(found[1], 16)
            is_cache = not found[3] and size >= _LEAST_CACHE_BYTES
            kind = "weights" if ".safetensors" in line else "cache" if is_cache else "other"
        elif line.startswith("Rss:"):
            resident[kind] += int(line.split()[1]) * 1024
    return resident["other"], resident["weights"]


def measure(model: str, weights: str, repeats: int, folder: Path) -> dict[str, list[Started]]:
    """Every kind of start, `repeats` times."""
    kinds: dict[str, list[Started]] = {"packing": [], "from the cache": [], "from a snapshot": []}
    snapshot = folder / "snapshot"
    made = [*_COMMAND, "snapshot", model, str(snapshot), "--weights", weights]
    subprocess.run(made, check=True)
    for number in range(repeats):
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / str(number))}
        asked = [model, "--weights", weights, "--packed-cache"]
        kinds["packing"].append(start(asked, environment))
        kinds["from the cache"].append(start(asked, environment))
        kinds["from a snapshot"].append(start([str(snapshot)], environment))
    return kinds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model directory")
    parser.add_argument("--weights", default="int8")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    table = Table("start", "ready, s", "of these", "MiB beside weights", "MiB of weights")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(asked.model, asked.weights, asked.repeats, Path(folder))
    for kind, starts in measured.items():
        table.add_row(
            kind,
            f"{median(each.ready_s for each in starts):.1f}",
            starts[-1].note,
            f"{median(each.beside_weights_bytes for each in starts) / _MIB:,.0f}",
            f"{median(each.mapped_weights_bytes for each in starts) / _MIB:,.0f}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
