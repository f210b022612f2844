"""Clients whose requirements contradict ours, each in a virtual environment of its own.

They are kept in the user's cache directory from one run to the next. Where such a client cannot be
installed, as without a network, its tests are skipped; with CI=true in the environment they fail.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

OURS = [
    path for path in sys.path if path.endswith("site-packages") or Path(path, "penstock").is_dir()
]
"""Where Python finds Penstock and what it requires."""

_VARIABLE = "PENSTOCK_TESTS_PATH"
SEES_OURS = {_VARIABLE: os.pathsep.join(OURS)}
"""With these in its environment, an interpreter from here finds ours behind its own packages."""


def python_with(*requirements: str) -> Path:
    """An interpreter that has these packages."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    name = hashlib.sha256(repr((sys.version_info[:2], requirements)).encode()).hexdigest()[:16]
    place = cache / "penstock-tests" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes run side by side
        python, is_complete = place / "bin" / "python", place / "complete"
        if not is_complete.exists():
            _install(place, python, requirements)
            [packages] = place.glob("lib/python*/site-packages")
            (packages / "ours.pth").write_text(
                f"import os, sys; sys.path += filter(None, os.getenv({_VARIABLE!r}, '').split(':'))"
            )
            is_complete.touch()
    return python


def _install(place: Path, python: Path, requirements: tuple[str, ...]) -> None:
    new = [sys.executable, "-m", "venv", "--clear", "--without-pip", place]
    subprocess.run(new, check=True)
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if pip.returncode:
        complain = pytest.fail if os.environ.get("CI") else pytest.skip
        complain(f"{', '.join(requirements)} cannot be installed: {pip.stderr[-500:]}")
