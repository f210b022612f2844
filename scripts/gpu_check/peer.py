"""transformers' continuous batching on the same work, where transformers is installed."""

import time
from typing import Any

import numpy as np
import torch

from penstock.bench.workload import made_up_lengths, random_prompt
from scripts.gpu_check.engine import MAX_LEN, NUM_SHAREGPT
from scripts.gpu_check.random_model import SHAPES


def run(deadline: float, report: dict[str, Any]) -> dict[str, Any]:
    """Output tokens per second of `generate_batch` under ShareGPT's lengths."""
    import transformers

    shape = SHAPES["Llama-3-8B"]
    config = transformers.LlamaConfig(**{k: v for k, v in shape.items() if k != "model_type"})
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16, attn_implementation="paged|sdpa"
        ).eval()
    rng = np.random.default_rng(0)
    lengths = made_up_lengths(NUM_SHAREGPT, 0, MAX_LEN)
    prompts = [random_prompt(rng, length, config.vocab_size) for length, _ in lengths]
    # One output length serves all of its requests: the mean, so that the work is as much.
    mean = sum(out for _, out in lengths) // len(lengths)
    options = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=mean, eos_token_id=-1, pad_token_id=0
    )
    began = time.perf_counter()
    with torch.inference_mode():
        outputs = model.generate_batch(inputs=prompts, generation_config=options)
    elapsed = time.perf_counter() - began
    num_out = sum(len(each.generated_tokens) for each in outputs.values())
    rate = num_out / elapsed
    summary = {f"transformers {transformers.__version__}, out tokens/s": f"{rate:,.0f}"}
    ours = report.get("engine", {}).get("Llama-3-8B, bfloat16", {})
    if "sharegpt_out_tokens_per_s" in ours:
        summary["Penstock over transformers"] = f"{ours['sharegpt_out_tokens_per_s'] / rate:.2f} x"
    return {"out_tokens_per_s": rate, "max_new_tokens": mean, "summary": summary}
