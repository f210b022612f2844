"""A virtual environment for each engine, and each model in the form that the engine reads."""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.engines import Contender, Engine

ROOT = Path(__file__).parents[2]
_INSTALL_LIMIT_S = 3600  # one of them is compiled from source
_CONVERT_LIMIT_S = 1800
_QUOTED_LINES = 15


class Unavailable(Exception):
    """An engine that cannot be installed, started or measured here; the argument says why."""


@dataclass(frozen=True)
class Cache:
    """A folder in which everything is kept that takes long to make."""

    folder: Path
    threads: int

    def python(self, engine: Engine) -> Path:
        """The interpreter that runs the engine."""
        return self._venv(engine.name) / "bin/python" if engine.packages else Path(sys.executable)

    def log(self, contender: Contender) -> Path:
        """Where everything goes that the engine prints."""
        path = self.folder / "logs" / f"{contender.engine.name}-{contender.weights.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def variables(self, engine: Engine) -> dict[str, str]:
        """The environment that the engine runs in, with only its own variables added."""
        own = {name: self._fill(value, engine) for name, value in engine.variables.items()}
        return {**_surroundings(), **own}

    def install(self, engine: Engine) -> None:
        """Make the engine's environments unless they are there. Raises `Unavailable`."""
        if engine.packages:
            target = self._venv(engine.name)
            self._install(target, engine.packages, engine.unwanted, engine.build_variables)
        if engine.converter:
            self._install(self._converter(engine), engine.converter, (), {})

    def convert(self, contender: Contender, model: Path) -> Path:
        """The folder that the contender loads, made unless it is there. Raises `Unavailable`."""
        engine, weights = contender.engine, contender.weights
        if not weights.convert:
            return model
        output = self.folder / "converted" / model.name / f"{engine.name}-{weights.name}"
        done = output / "made"
        if not done.exists():
            output.mkdir(parents=True, exist_ok=True)
            words = [self._fill(word, engine, model, output) for word in weights.convert]
            _run(words, {}, self.log(contender), _CONVERT_LIMIT_S)
            done.touch()
        return output

    def _venv(self, name: str) -> Path:
        return self.folder / "environments" / name

    def _converter(self, engine: Engine) -> Path:
        return self._venv("convert-" + engine.converter[0].split("==")[0])

    def _install(
        self,
        target: Path,
        packages: tuple[str, ...],
        unwanted: tuple[str, ...],
        variables: Mapping[str, str],
    ) -> None:
        done = target / "made"
        wanted = "\n".join([*packages, *variables.values()])
        if done.exists() and done.read_text() == wanted:
            return
        venv.create(target, with_pip=True, clear=True)
        pip = [str(target / "bin/python"), "-m", "pip"]
        log = self.folder / "logs" / f"install-{target.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        _run([*pip, "install", *packages], variables, log, _INSTALL_LIMIT_S)
        if unwanted:
            _run([*pip, "uninstall", "--yes", *unwanted], {}, log, _INSTALL_LIMIT_S)
        done.write_text(wanted)

    def _fill(self, text: str, engine: Engine, model: Path = ROOT, output: Path = ROOT) -> str:
        return text.format(
            venv=self._venv(engine.name),
            converter=self._converter(engine) if engine.converter else "",
            cache=self.folder,
            model=model,
            output=output,
            threads=self.threads,
            cores=",".join(map(str, sorted(os.sched_getaffinity(0))[: self.threads])),
        )


def last_words(log: Path) -> str:
    """The end of what a program printed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_QUOTED_LINES:])


def _surroundings() -> dict[str, str]:
    """This program's environment, without what it was told for itself."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _run(words: list[str], variables: Mapping[str, str], log: Path, limit_s: float) -> None:
    with log.open("w") as output:
        try:
            done = subprocess.run(
                words,
                cwd=ROOT,
                env={**_surroundings(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{words[0]} took more than {limit_s:.0f} s.") from None
        except OSError as error:
            raise Unavailable(str(error)) from None
    if done.returncode:
        raise Unavailable(f"{' '.join(words)} failed:\n{last_words(log)}")
