"""llama.cpp through its C interface, driven as its own server drives it.

The Python class of llama-cpp-python holds one sequence at a time, which would be unfair where there
are many. So sequences are batched here as llama-server does: each step takes one token of every
sequence that generates, then as much prompt as the batch still holds.
"""

import ctypes
from dataclasses import dataclass, field

import llama_cpp
import numpy

from benchmarks.peers.workers.measuring import CONTEXT_LEN, MAX_STREAMS, Job, work


@dataclass
class Sequence:
    """One prompt, how much of it is computed, and what has been generated."""

    prompt: list[int]
    max_tokens: int
    num_computed: int = 0
    output: list[int] = field(default_factory=list)

    @property
    def pending(self) -> list[int]:
        return [*self.prompt, *self.output][self.num_computed :]


class LlamaCpp:
    """Greedy sampling is an arg-max over the logits; a sampler chain of theirs takes longer."""

    def __init__(self, job: Job) -> None:
        self.version = llama_cpp.__version__
        llama_cpp.llama_backend_init()
        path = str(job.model / "model.gguf").encode()
        self._model = llama_cpp.llama_model_load_from_file(
            path, llama_cpp.llama_model_default_params()
        )
        self.settings = {
            "n_threads": job.threads,
            "n_threads_batch": job.threads,
            "n_seq_max": MAX_STREAMS,
            "n_ctx": MAX_STREAMS * CONTEXT_LEN,
            "kv_unified": False,
        }
        params = llama_cpp.llama_context_default_params()
        for name, value in self.settings.items():
            setattr(params, name, value)
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._memory = llama_cpp.llama_get_memory(self._context)
        vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self._limit = params.n_batch
        self._batch = llama_cpp.llama_batch_init(self._limit, 0, 1)

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """See `Engine`."""
        sequences = [Sequence(prompt, n) for prompt, n in zip(prompts, max_tokens, strict=True)]
        running = dict(enumerate(sequences))
        while running:
            self._step(running)
            for number in [n for n, each in running.items() if len(each.output) >= each.max_tokens]:
                llama_cpp.llama_memory_seq_rm(self._memory, number, -1, -1)
                del running[number]
        return [len(sequence.output) for sequence in sequences]

    def _step(self, running: dict[int, Sequence]) -> None:
        """Those with one pending token first, then prompts in order of arrival."""
        rows: dict[int, Sequence] = {}
        self._batch.n_tokens = 0
        for number, sequence in sorted(running.items(), key=lambda item: len(item[1].pending) > 1):
            pending = sequence.pending
            count = min(len(pending), self._limit - self._batch.n_tokens)
            for offset in range(count):
                self._add(number, pending[offset], sequence.num_computed + offset)
            sequence.num_computed += count
            if count and count == len(pending):
                row = self._batch.n_tokens - 1
                self._batch.logits[row] = 1
                rows[row] = sequence
        failed = llama_cpp.llama_decode(self._context, self._batch)
        if failed:
            raise RuntimeError(f"llama_decode returned {failed}")
        for row, sequence in rows.items():
            sequence.output.append(self._most_likely(row))

    def _add(self, number: int, token: int, position: int) -> None:
        row = self._batch.n_tokens
        self._batch.token[row] = token
        self._batch.pos[row] = position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = number
        self._batch.logits[row] = 0
        self._batch.n_tokens = row + 1

    def _most_likely(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        kept = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._vocab_size))
        return int(numpy.frombuffer(kept.contents, dtype=numpy.float32).argmax())


if __name__ == "__main__":
    work(LlamaCpp)
