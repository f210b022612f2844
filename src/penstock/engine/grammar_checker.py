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


class TooCostly(InvalidRequest):
    """Trying a grammar out took too long or too much memory. On a busier machine more are."""


class GrammarChecker:
    """Starts the process when it is first needed, and another if a grammar has killed it.

    One thread at a time may use it.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., GrammarChecker] | None = None

    def translated(self, grammar: Grammar) -> str:
        """A grammar that is safe to compile, as llguidance takes it. Raises `InvalidRequest`."""
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

    def _killed(self, process: subprocess.Popen[bytes], grammar: Grammar) -> InvalidRequest:
        self._process = None
        process.wait()
        self.close()
        limits = self._bench.limits
        why = f"takes more than {limits.memory_mib} MiB, or nests too deeply,"
        if process.returncode == -signal.SIGALRM:
            why = f"takes more than {limits.timeout_s:g} s"
        return TooCostly(
            f"{grammar.param} {why} to compile.",
            param=grammar.param,
            remedy="Simplify it: fewer alternatives, smaller bounds, shallower references.",
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
