"""What is written down of a running deployment, so that others find it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from penstock.vocabulary.errors import NoSuchServer


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A server and how to reach it. `started` tells its process from a later one of the same id."""

    name: str
    model: str
    pid: int
    started: int
    url: str
    api_key: str
    log: str

    @property
    def is_running(self) -> bool:
        """Whether the process that this was written of is still there."""
        return start_of(self.pid) == self.started

    def __repr__(self) -> str:
        return f"Deployment({self.name!r}, {self.model!r}, {self.url}, pid {self.pid})"


def start_of(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine was; None if it has ended."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def directory() -> Path:
    """Where deployments are written down: for this user only, and where it can be until the next
    start of the machine
    (https://specifications.freedesktop.org/basedir-spec/latest/).
    """
    named = (os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"))
    usable = (Path(path) for path in named if path.startswith("/") and Path(path).is_dir())
    root = next(usable, Path("~/.cache").expanduser())
    found = root / "penstock" / "deployments"
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def log_of(name: str) -> Path:
    """Where a deployment writes its log."""
    return directory() / f"{_filename(name)}.log"


def write(deployment: Deployment) -> None:
    """Have others find it; nobody sees half of it, and no other user any of it."""
    path = _path(deployment.name)
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(deployment))
    new.replace(path)


def remove(deployment: Deployment) -> None:
    """Forget it, unless another has taken its name."""
    if _read(_path(deployment.name)) == deployment:
        _path(deployment.name).unlink(missing_ok=True)


def running() -> list[Deployment]:
    """All that run, by name. What is left of others is cleared away."""
    found = []
    for path in sorted(directory().glob("*.json")):
        deployment = _read(path)
        if deployment is not None and deployment.is_running:
            found.append(deployment)
        elif deployment is not None:
            remove(deployment)
    return sorted(found, key=lambda deployment: deployment.name)


def named(name: str) -> Deployment | None:
    """The deployment of exactly that name, if it runs."""
    return next((each for each in running() if each.name == name), None)


def find(name: str) -> Deployment:
    """The deployment of that name, or else the only one of that model. Raises `NoSuchServer`."""
    if deployment := named(name):
        return deployment
    there = running()
    of_model = [deployment for deployment in there if deployment.model == name]
    if len(of_model) == 1:
        return of_model[0]
    known = ", ".join(deployment.name for deployment in there)
    raise NoSuchServer(
        f"No deployment {name!r} is running.",
        remedy=f"There are: {known}." if known else "penstock.serve starts one.",
    )


@contextlib.contextmanager
def reserved(name: str) -> Iterator[None]:
    """While one process starts a deployment, others that want its name wait."""
    with (directory() / f"{_filename(name)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _path(name: str) -> Path:
    return directory() / f"{_filename(name)}.json"


def _filename(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")


def _read(path: Path) -> Deployment | None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Deployment)
    return None
