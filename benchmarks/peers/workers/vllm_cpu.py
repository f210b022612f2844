"""vLLM's CPU backend, through its offline API."""

import os

import vllm

from benchmarks.peers.workers.measuring import CONTEXT_LEN, Job, work


class Vllm:
    """Compiled as it comes; its variables are set by whoever starts this program."""

    def __init__(self, job: Job) -> None:
        self.version = vllm.__version__
        dtype = "bfloat16" if job.weights == "bfloat16" else "float32"
        settings = {"dtype": dtype, "max_model_len": CONTEXT_LEN}
        self._llm = vllm.LLM(str(job.model), **settings)
        variables = {name: value for name, value in os.environ.items() if name.startswith("VLLM_")}
        self.settings = {**settings, **variables, "LD_PRELOAD": os.environ.get("LD_PRELOAD", "")}

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """See `Engine`."""
        results = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [vllm.SamplingParams(max_tokens=n, temperature=0, ignore_eos=True) for n in max_tokens],
            use_tqdm=False,
        )
        return [len(result.outputs[0].token_ids) for result in results]


if __name__ == "__main__":
    work(Vllm)
