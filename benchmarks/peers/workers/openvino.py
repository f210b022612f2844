"""OpenVINO GenAI's continuous batching pipeline."""

import numpy
import openvino
import openvino_genai

from benchmarks.peers.workers.measuring import MAX_STREAMS, Job, work

CACHE_GB = 4


class OpenVino:
    """Keys and values in 8 bits and quantized activations are the defaults where they help."""

    def __init__(self, job: Job) -> None:
        plugin = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": job.threads}
        scheduling = {"cache_size": CACHE_GB, "max_num_seqs": MAX_STREAMS}
        scheduler = openvino_genai.SchedulerConfig()
        for name, value in scheduling.items():
            setattr(scheduler, name, value)
        self.version = openvino_genai.__version__
        self.settings = {**plugin, **scheduling}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            job.model, scheduler, "CPU", plugin
        )

    def generate(self, prompts: list[list[int]], max_tokens: list[int]) -> list[int]:
        """See `Engine`."""
        results = self._pipeline.generate(
            [openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt in prompts],
            [self._config(n) for n in max_tokens],
        )
        return [len(result.m_generation_ids[0]) for result in results]

    def _config(self, max_tokens: int) -> openvino_genai.GenerationConfig:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.ignore_eos = True
        config.do_sample = False
        return config


if __name__ == "__main__":
    work(OpenVino)
