"""Look for inputs that break what must hold for every input, led by the code that they reach.

Every tests/fuzz/test_TARGET.py is a target; the same tests run briefly with all others. What is
learned is kept in .fuzz/, so that the next run goes on from there.
"""

import argparse
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.inputs import FOUND, GUIDED

HERE = Path(__file__).parent
CORPORA = HERE.parents[1] / ".fuzz"
TARGETS = sorted(path.stem.removeprefix("test_") for path in HERE.glob("test_*.py"))
LIMITS = ["-timeout=30", "-rss_limit_mb=3000", "-max_len=4096", "-len_control=0"]
_MAX_CHARS = 6000
console = Console()


def names_in(target: str) -> list[str]:
    """The names of a target's tests, without importing it."""
    source = (HERE / f"test_{target}.py").read_text()
    return re.findall(r"^def (test_\w+)", source, re.MULTILINE)


def fuzz(target: str, test: str, seconds: int) -> tuple[int, str]:
    """(executions, what was said if an input was found)."""
    corpus = CORPORA / target / test
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(8):  # hypothesis needs many bytes to make anything of them
        (corpus / f"seed-{number}").write_bytes(secrets.token_bytes(512 * (number + 1)))
    command = [sys.executable, "-m", "tests.fuzz.guided", f"tests.fuzz.test_{target}", test]
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={corpus.parent}/", *LIMITS]
    ran = subprocess.run(
        [*command, *flags, "-print_final_stats=1", str(corpus)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, GUIDED: "1"},
    )
    counts = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)", ran.stderr, re.MULTILINE)
    executions = max((int(one or other) for one, other in counts), default=0)
    if ran.returncode == 0:
        return executions, ""
    said = ran.stdout + ran.stderr
    return executions, said.partition(FOUND)[2][-_MAX_CHARS:] or said[-_MAX_CHARS:]


def main() -> None:
    """Fuzz one target or all, and say what came of it. Exits with 1 if anything was found."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="?", choices=TARGETS, help="default: all of them")
    parser.add_argument("seconds", nargs="?", type=int, default=60, help="for each (default: 60)")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit('Fuzzing needs atheris: pip install -e ".[fuzz]"')
    targets = [options.target] if options.target else TARGETS
    table = Table("target", "test", "inputs", "seconds", "found")
    found = []
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn()) as progress:
        bar = progress.add_task("Fuzzing", total=sum(len(names_in(target)) for target in targets))
        for target in targets:
            tests = names_in(target)
            for test in tests:
                progress.update(bar, description=target)
                began = time.monotonic()
                executions, said = fuzz(target, test, max(1, options.seconds // len(tests)))
                took = f"{time.monotonic() - began:.0f}"
                table.add_row(target, test, f"{executions:,}", took, "yes" if said else "nothing")
                found += [said] if said else []
                progress.advance(bar)
    for said in found:
        console.print(said, markup=False)
    console.print(table)
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
