"""CTranslate2, whose batches are static: a sequence that ends makes room for no other."""

import json
from typing import Any

import ctranslate2

from benchmarks.peers.workers.measuring import MAX_STREAMS, Job, work


class CTranslate2:
    """Prompts of a batch are handed over at once; each sequence leaves it at its own length."""

    def __init__(self, job: Job) -> None:
        self.version = ctranslate2.__version__
        self.settings = {
            "compute_type": job.weights,
            "inter_threads": 1,
            "intra_threads": job.threads,
            "max_batch_size": MAX_STREAMS,
        }
        self._vocabulary = json.loads((job.model / "vocabulary.json").read_text())
        self._generator = ctranslate2.Generator(
            str(job.model),
            device="cpu",
            compute_type=job.weights,
            inter_threads=1,
            intra_threads=job.threads,
        )

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """See `Engine`."""
        counts = [0] * len(prompts)

        def ends(step: Any) -> bool:
            counts[step.batch_id] += 1
            return bool(counts[step.batch_id] >= max_tokens[step.batch_id])

        longest = max(max_tokens)
        self._generator.generate_batch(
            [[self._vocabulary[token] for token in prompt] for prompt in prompts],
            max_batch_size=MAX_STREAMS,
            max_length=longest,
            min_length=longest,  # forbids the end token
            include_prompt_in_result=False,
            callback=ends,
        )
        return counts


if __name__ == "__main__":
    work(CTranslate2)
