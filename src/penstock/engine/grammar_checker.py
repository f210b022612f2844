"""The engine's handle on the process in which grammars are tried out first."""

import contextlib
import signal
import subprocess
import sys
import weakref

import msgspec

from penstock.engine.grammar_trial import Bench, Verdict
from penstock.engine.wire import LENGTH
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar

_OUT_OF_TIME = -signal.SIGPROF
_OUT_OF_ROOM = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)


class GrammarChecker:
    """Starts the process when it is first needed, and another if a grammar has killed it.

    One thread at a time may use it.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., GrammarChecker] | None = None

    def translated(self, grammar: Grammar) -> str:
        """A grammar that is safe to compile, as llguidance takes it.

        Raises `InvalidRequest` for one that is not, and `RuntimeError` if nobody can say.
        """
        process = self._process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            _write(process, grammar)
            header = process.stdout.read(LENGTH.size)
        except BrokenPipeError:
            header = b""
        if not header:
            raise self._killed(process, grammar)
        verdict = msgspec.msgpack.decode(process.stdout.read(*LENGTH.unpack(header)), type=Verdict)
        if verdict.message:
            raise InvalidRequest(verdict.message, param=grammar.param, remedy=verdict.remedy)
        return verdict.translated

    def close(self) -> None:
        """End the process; a grammar that is being tried out is refused."""
        if self._end is not None:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.engine.grammar_trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # dying processes have words that clients could choose
        )
        self._end = weakref.finalize(self, _end, process)
        _write(process, self._bench)
        return process

    def _killed(self, process: subprocess.Popen[bytes], grammar: Grammar) -> Exception:
        """What the grammar has done to the process, if it has done it."""
        self._process = None
        process.wait()
        self.close()
        limits = self._bench.limits
        if process.returncode == _OUT_OF_TIME:
            why = f"takes more than {limits.timeout_s:g} s"
        elif process.returncode in _OUT_OF_ROOM:
            why = f"takes more than {limits.memory_mib} MiB, or refers to itself too deeply,"
        else:
            return RuntimeError(f"the process ended with exit code {process.returncode}")
        return InvalidRequest(
            f"{grammar.param} {why} to compile.",
            param=grammar.param,
            remedy="Simplify it: fewer alternatives, smaller bounds, shorter chains of references.",
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # what could not be written any more
            pipe.close()


def _write(process: subprocess.Popen[bytes], message: msgspec.Struct) -> None:
    assert process.stdin is not None
    body = msgspec.msgpack.encode(message)
    process.stdin.write(LENGTH.pack(len(body)) + body)
    process.stdin.flush()
