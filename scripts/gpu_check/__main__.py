"""Run the parts one after the other while there is time, write what they found as JSON, and end
with a short table.
"""

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

PARTS = {
    "conformance": 140.0,
    "laws": 55.0,
    "ceilings": 15.0,
    "kernels": 40.0,
    "engine": 130.0,
    "deterministic": 55.0,
    "peer": 70.0,
}
"""Parts, and how many seconds each may take: less than nine minutes together."""
GRACE_S = 5.0
"""So much later a part that does not look at the clock is interrupted."""


def main() -> int:
    options = _options()
    if options.wheels is not None:
        _unpack(options.wheels)
    signal.signal(signal.SIGALRM, _interrupt)
    report: dict[str, Any] = {"machine": _machine()}
    print(json.dumps(report["machine"]))
    for name in options.parts:
        began = time.monotonic()
        report[name] = _run(name, began + PARTS[name], report)
        report[name]["seconds"] = round(time.monotonic() - began, 1)
        options.out.write_text(json.dumps(report, indent=1))
    print(f"\nAll figures: {options.out}\n")
    for line in _table(report, options.parts):
        print(line)
    return any("error" in report[name] or report[name].get("wrong") for name in options.parts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--wheels", type=Path, help="folder of wheels to use that are not installed here"
    )
    return parser.parse_args()


def _interrupt(number: int, frame: object) -> None:
    raise TimeoutError("the part took too long")


def _unpack(wheels: Path) -> None:
    """Make carried wheels importable, whether or not pip is here."""
    folder = tempfile.mkdtemp(prefix="gpu-check-")
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    sys.path.insert(0, folder)


def _machine() -> dict[str, Any]:
    import torch
    import triton

    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; scripts/test -m triton tests the kernels without one")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "gpu": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }


def _run(name: str, deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """What a part found, or why it found nothing: the other parts go on."""
    print(f"\n== {name}", flush=True)
    part: Callable[[float, dict[str, Any]], dict[str, Any]]
    signal.setitimer(signal.ITIMER_REAL, deadline - time.monotonic() + GRACE_S)
    try:
        part = import_module(f"scripts.gpu_check.{name}").run
        return part(deadline, report)
    except Exception as error:  # on a machine that nobody has seen, anything may be missing
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _table(report: dict[str, Any], parts: list[str]) -> list[str]:
    lines = []
    for name in parts:
        found = report[name]
        rows = found.get("summary", {})
        if "error" in found:
            rows = {"error": found["error"]} | rows
        lines += [f"{name:<12} {label:<44} {value}" for label, value in rows.items()]
    return lines


if __name__ == "__main__":
    sys.exit(main())
