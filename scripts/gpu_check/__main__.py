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
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.gpu_check.part import Part, Scale

PARTS = {
    "conformance": 135.0,
    "laws": 55.0,
    "waiting": 15.0,
    "ceilings": 15.0,
    "kernels": 40.0,
    "engine": 125.0,
    "deterministic": 55.0,
    "peer": 60.0,
}
"""Parts, and how many seconds each may take: less than nine minutes together."""
GRACE_S = 5.0
"""So much later a part that does not look at the clock is interrupted."""


def main(arguments: list[str] | None = None, scale: Scale | None = None) -> int:
    """The check, on the GPU that is here unless a scale says otherwise. 1 if anything is wrong."""
    options, scale = _options(arguments), scale or Scale()
    if options.wheels is not None:
        _unpack(options.wheels)
    signal.signal(signal.SIGALRM, _interrupt)
    report: dict[str, Any] = {"machine": _machine(scale)}
    print(json.dumps(report["machine"]))
    for name in options.parts:
        began = time.monotonic()
        report[name] = _run(name, Part(began + PARTS[name], scale, report))
        report[name]["seconds"] = round(time.monotonic() - began, 1)
        options.out.write_text(json.dumps(report, indent=1))
    print(f"\nAll figures: {options.out}\n")
    for line in _table(report, options.parts):
        print(line)
    return int(any("error" in report[name] or report[name]["wrong"] for name in options.parts))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--wheels", type=Path, help="folder of wheels to use that are not installed here"
    )
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: object) -> None:
    raise TimeoutError("the part took too long")


def _unpack(wheels: Path) -> None:
    """Make carried wheels importable, whether or not pip is here."""
    folder = tempfile.mkdtemp(prefix="gpu-check-")
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    sys.path.insert(0, folder)


def _machine(scale: Scale) -> dict[str, Any]:
    import torch
    import triton

    known = {"date": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "python": platform.python_version()}
    known |= {"torch": torch.__version__, "triton": triton.__version__}
    if not scale.is_gpu:
        return known
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; scripts/test -m triton tests the kernels without one")
    return known | {
        "gpu": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1),
    }


def _run(name: str, part: Part) -> dict[str, Any]:
    """What a part found, and what kept it from finding more: the other parts go on."""
    print(f"\n== {name}", flush=True)
    failed = {}
    signal.setitimer(signal.ITIMER_REAL, part.deadline - time.monotonic() + GRACE_S)
    try:
        import_module(f"scripts.gpu_check.{name}").run(part)
    except Exception as error:  # on a machine that nobody has seen, anything may be missing
        traceback.print_exc()
        failed = {"error": f"{type(error).__name__}: {error}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {**part.figures, "summary": part.summary, "wrong": part.wrong, **failed}


def _table(report: dict[str, Any], parts: list[str]) -> list[str]:
    lines = []
    for name in parts:
        found = report[name]
        wrong = {"error": found["error"]} if "error" in found else {}
        rows = wrong | {
            f"wrong, {number}": each for number, each in enumerate(found["wrong"][:5], 1)
        }
        rows |= found["summary"]
        lines += [f"{name:<12} {label:<44} {value}" for label, value in rows.items()]
    return lines


if __name__ == "__main__":
    sys.exit(main())
