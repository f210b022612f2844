"""A process in which grammars are tried out: `python -m penstock.engine.grammar_trial`.

A grammar can be made to take hours to compile, all of the memory, or the stack: then this process
dies, and nothing else does. It reads framed messages from standard input, answers each on standard
output, and ends with its input.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from penstock.engine.grammar_compiler import GrammarCompiler, GrammarLimits
from penstock.engine.wire import LENGTH
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar

T = TypeVar("T")

STACK_BYTES = 4 * 2**20
"""What compiling may take of the stack here. Where it is done for good it has several times as
much, since llguidance follows references by calling itself, and no one survives an overflow.
"""


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: which vocabulary to compile for, and what a grammar may cost."""

    model_dir: str
    vocab_size: int
    end_token_ids: list[int]
    limits: GrammarLimits


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A grammar as llguidance takes it, or why it is refused."""

    translated: str = ""
    message: str = ""
    remedy: str = ""


def tried(compiler: GrammarCompiler, grammar: Grammar) -> Verdict:
    """Compile a grammar and follow it a little."""
    try:
        translated = compiler.translated(grammar)
        compiler.try_out(compiler.matcher(translated, grammar.param), grammar.param)
    except InvalidRequest as error:
        return Verdict(message=error.message, remedy=error.remedy)
    return Verdict(translated=translated)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more requests."""
    bench = _read(requests, Bench)
    if bench is None:
        return
    compiler = GrammarCompiler(
        Tokenizer.from_dir(Path(bench.model_dir)),
        vocab_size=bench.vocab_size,
        end_token_ids=bench.end_token_ids,
        limits=bench.limits,
    )
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_AS, _address_space() + bench.limits.memory_mib * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    while (grammar := _read(requests, Grammar)) is not None:
        # In processor time, so that a busy machine refuses nothing more. The signal's default
        # action ends the process, wherever it is.
        signal.setitimer(signal.ITIMER_PROF, bench.limits.timeout_s)
        verdict = tried(compiler, grammar)
        signal.setitimer(signal.ITIMER_PROF, 0)
        body = msgspec.msgpack.encode(verdict)
        answers.write(LENGTH.pack(len(body)) + body)
        answers.flush()


def _read(stream: BinaryIO, kind: type[T]) -> T | None:
    header = stream.read(LENGTH.size)
    if not header:
        return None
    return msgspec.msgpack.decode(stream.read(*LENGTH.unpack(header)), type=kind)


def _address_space() -> int:
    """Bytes that this process has taken for itself so far."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Standard output is for answers alone; whatever else is printed goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
