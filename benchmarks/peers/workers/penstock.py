"""Penstock itself, through its Python API."""

import penstock
from benchmarks.peers.workers.measuring import CONTEXT_LEN, Job, work


class Penstock:
    """Settings are left as they come, but for the weights and a context that suits the work."""

    def __init__(self, job: Job) -> None:
        self.settings = {"weights": job.weights, "max_model_len": CONTEXT_LEN}
        self.version = penstock.__version__
        self._llm = penstock.LLM(str(job.model), **self.settings)

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """See `Engine`."""
        results = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [
                penstock.SamplingParams(max_tokens=n, temperature=0, ignore_eos=True)
                for n in max_tokens
            ],
            use_tqdm=False,
        )
        return [len(result.outputs[0].token_ids) for result in results]


if __name__ == "__main__":
    work(Penstock)
