"""transformers' continuous batching on the same work, where transformers is installed."""

import time

import numpy as np
import torch

from penstock.bench.workload import made_up_lengths, random_prompt
from scripts.gpu_check.engine import NUM_SHAREGPT
from scripts.gpu_check.part import Part


def run(part: Part) -> None:
    """Output tokens per second of `generate_batch` under ShareGPT's lengths."""
    import transformers

    scale = part.scale
    shape = scale.shapes["Llama-3-8B"]
    max_len, count = (6144, NUM_SHAREGPT) if scale.is_gpu else (64, 4)
    config = transformers.LlamaConfig(**{k: v for k, v in shape.items() if k != "model_type"})
    with torch.device(scale.device):
        model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()
    rng = np.random.default_rng(0)
    lengths = made_up_lengths(count, 0, max_len)
    prompts = [random_prompt(rng, length, config.vocab_size) for length, _ in lengths]
    # One output length serves all of its requests: the mean, so that the work is as much.
    mean = sum(out for _, out in lengths) // len(lengths)
    options = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=mean, eos_token_id=-1, pad_token_id=0
    )
    began = time.perf_counter()
    # Not in torch.inference_mode: a thread of its own changes tensors that were made here.
    outputs = model.generate_batch(inputs=prompts, generation_config=options)
    elapsed = time.perf_counter() - began
    num_out = sum(len(each.generated_tokens) for each in outputs.values())
    if num_out < count * mean:
        raise RuntimeError(f"transformers answered {num_out} of {count * mean} tokens.")
    rate = num_out / elapsed
    part.figures |= {"out_tokens_per_s": rate, "max_new_tokens": mean}
    part.summary[f"transformers {transformers.__version__}, out tokens/s"] = f"{rate:,.0f}"
    ours = part.report.get("engine", {}).get("Llama-3-8B, bfloat16", {})
    if "sharegpt_out_tokens_per_s" in ours:
        times = ours["sharegpt_out_tokens_per_s"] / rate
        part.summary["Penstock over transformers"] = f"{times:.2f} x"
