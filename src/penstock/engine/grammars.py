"""Grammars on their way to the engine: tried out and compiled beside its loop, then kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.grammar_checker import GrammarChecker
from penstock.engine.grammar_compiler import GrammarCompiler, GrammarLimits
from penstock.engine.grammar_trial import STACK_BYTES, Bench
from penstock.engine.host import give_memory_back
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest, ModelError
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import Request

if TYPE_CHECKING:
    from llguidance import LLMatcher


@dataclass(slots=True)
class GrammarCounters:
    """What has become of the grammars asked for."""

    num_compiled: int = 0
    num_refused: int = 0
    num_reused: int = 0


class Grammars:
    """Compiles one grammar at a time, in a thread, and keeps the requests that wait for it.

    All methods are for the thread of the engine's loop, and none of them blocks but `wait`.
    `on_ready` is called, mostly from another thread, when a request need not wait any longer.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        vocab_size: int,
        end_token_ids: frozenset[int],
        limits: GrammarLimits,
        num_kept: int,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.counters = GrammarCounters()
        self._model_dir = model_dir
        self._vocab_size = vocab_size
        self._end_token_ids = sorted(end_token_ids)
        self._limits = limits
        self._num_kept = num_kept
        self._checker: GrammarChecker | None = None
        self._matchers: OrderedDict[Grammar, Future[LLMatcher]] = OrderedDict()
        self._waiting: dict[str, tuple[Request, Future[LLMatcher]]] = {}
        self._thread = ThreadPoolExecutor(1, "grammars")
        # The vocabulary is made ready while the weights are read: later it would hold up a step.
        with _stack_size(4 * STACK_BYTES):
            self._compiler = self._thread.submit(self._make_compiler, tokenizer)

    @property
    def end_token_id(self) -> int:
        """What ends a text when nothing else may follow."""
        return self._compiler.result().end_token_ids[0]

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def has_ready(self) -> bool:
        return any(future.done() for _, future in self._waiting.values())

    def of(self, grammar: Grammar) -> "Future[LLMatcher]":
        """The matcher at the beginning of a text, to be copied; or an `InvalidRequest`."""
        future = self._matchers.get(grammar)
        if future is None or _deserves_another_try(future):
            future = self._matchers[grammar] = self._thread.submit(self._compile, grammar)
        self._matchers.move_to_end(grammar)
        self._forget_oldest()
        return future

    def add(self, request: Request, grammar: Grammar) -> None:
        """Keep a request until its grammar is compiled."""
        future = self.of(grammar)
        self.counters.num_reused += future.done()
        self._waiting[request.request_id] = (request, future)
        future.add_done_callback(lambda _: self.on_ready())

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more. An unknown id is no error.

        A grammar for which nobody else waits is not compiled, unless that has begun: others would
        wait behind it.
        """
        _, future = self._waiting.pop(request_id, (None, None))
        if future is None or any(each is future for _, each in self._waiting.values()):
            return
        if future.cancel():
            kept = ((each, known) for each, known in self._matchers.items() if known is not future)
            self._matchers = OrderedDict(kept)

    def take_ready(self) -> "list[tuple[Request, Future[LLMatcher]]]":
        """Requests that need not wait any longer, in the order of their arrival."""
        ready = [(request, future) for request, future in self._waiting.values() if future.done()]
        for request, _ in ready:
            del self._waiting[request.request_id]
        return ready

    def wait(self) -> None:
        """Sleep until a request is ready, if there is one."""
        wait([future for _, future in self._waiting.values()], return_when=FIRST_COMPLETED)

    def close(self) -> None:
        """Stop compiling, and refuse whatever waits for it."""
        if self._checker is not None:
            self._checker.close()
        self._thread.shutdown(cancel_futures=True)

    def _forget_oldest(self) -> None:
        while len(self._matchers) > self._num_kept:
            self._matchers.popitem(last=False)

    # -- in the thread ---------------------------------------------------------------------------

    def _make_compiler(self, tokenizer: Tokenizer | None) -> GrammarCompiler:
        if not self._end_token_ids:
            raise ModelError("It has no end-of-text token to end a text with where a grammar ends.")
        tokenizer = tokenizer or Tokenizer.from_dir(self._model_dir)
        eos = tokenizer.special_tokens.get(tokenizer.eos_token or "")
        compiler = GrammarCompiler(
            tokenizer,
            vocab_size=self._vocab_size,
            end_token_ids=sorted(self._end_token_ids, key=lambda id_: (id_ != eos, id_)),
            limits=self._limits,
        )
        give_memory_back()
        return compiler

    def _compile(self, grammar: Grammar) -> "LLMatcher":
        try:
            compiler = self._usable_compiler(grammar)
            self._checker = self._checker or GrammarChecker(
                Bench(
                    model_dir=str(self._model_dir),
                    vocab_size=self._vocab_size,
                    end_token_ids=compiler.end_token_ids,
                    limits=self._limits,
                )
            )
            matcher = compiler.matcher(self._checker.translated(grammar), grammar.param)
        except InvalidRequest:
            self.counters.num_refused += 1
            raise
        self.counters.num_compiled += 1
        return matcher

    def _usable_compiler(self, grammar: Grammar) -> GrammarCompiler:
        try:
            return self._compiler.result()
        except ModelError as error:
            raise InvalidRequest(
                f"This model cannot follow a grammar: {error}", param=grammar.param
            ) from None


@contextmanager
def _stack_size(num_bytes: int) -> Iterator[None]:
    """The stack of threads that are started meanwhile."""
    before = threading.stack_size(num_bytes)
    try:
        yield
    finally:
        threading.stack_size(before)


def _deserves_another_try(future: "Future[LLMatcher]") -> bool:
    """Whether what went wrong had to do with this machine at that moment, not with the grammar."""
    error = future.exception() if future.done() else None
    return error is not None and not isinstance(error, InvalidRequest)
