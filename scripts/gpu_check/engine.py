"""The whole engine on two models' shapes: one stream, 64 streams, a long prompt, ShareGPT's
lengths, and how long the device waits for the host.
"""

import gc
import time

import numpy as np
import torch

from penstock.bench.workload import made_up_lengths, random_prompt
from penstock.engine.engine import Engine
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams
from scripts.gpu_check.part import Part, Scale
from scripts.gpu_check.random_model import random_engine

NUM_SHAREGPT = 256
RUNS = (
    ("Llama-3-8B", "bfloat16"),
    ("Qwen2.5-0.5B", "bfloat16"),
    ("Llama-3-8B", "fp8"),
    ("Llama-3-8B", "int4"),
    ("Llama-3-8B", "int8"),
)
"""The most important first: time may run out."""

Load = list[tuple[list[int], int]]
"""Prompts, and how many tokens follow each."""


def run(part: Part) -> None:
    """Rates of every run that there was time for. One that fails does not keep the others from
    being measured.
    """
    scale = part.scale
    for shape, weights in RUNS:
        is_late = time.monotonic() > part.deadline - scale.least_run_s
        if is_late or (weights == "fp8" and scale.capability < (8, 9)):
            continue
        try:
            rates = _rates(scale, shape, weights)
        except TimeoutError:
            raise
        except Exception as error:  # whatever happens on new hardware is a finding
            part.wrong.append(f"{shape} {weights}: {type(error).__name__}: {error}")
            print(part.wrong[-1], flush=True)
            continue
        finally:
            _free(scale)
        part.figures[f"{shape}, {weights}"] = rates
        for name, rate in rates.items():
            shown = f"{rate:,.3f}" if rate < 10 else f"{rate:,.0f}"
            part.summary[f"{shape} {weights}: {name}"] = shown
        print(shape, weights, rates, flush=True)


def _free(scale: Scale) -> None:
    """What a model took, for the next one."""
    gc.collect()
    if scale.is_gpu:
        torch.cuda.empty_cache()


def _rates(scale: Scale, shape: str, weights: str) -> dict[str, float]:
    began = time.monotonic()
    with random_engine(scale.shapes[shape], **scale.engine, weights=weights) as engine:
        loading_s = time.monotonic() - began
        return measure(engine, full=scale.is_gpu) | {"loading_s": loading_s}


def measure(engine: Engine, *, full: bool = True) -> dict[str, float]:
    """Tokens per second, and seconds, of each load; with `full`, of every one of them."""
    ready_at = time.monotonic()
    warm_up(engine)
    rates = {"warm_up_s": time.monotonic() - ready_at} | steady_rates(engine, full=full)
    lengths = made_up_lengths(NUM_SHAREGPT if full else 4, 0, engine.max_model_len)
    load = [(prompt(engine, number, each), out) for number, (each, out) in enumerate(lengths)]
    num_out = sum(out for _, out in load)
    rates["sharegpt_out_tokens_per_s"] = num_out / answer(engine, load)
    idle = idle_share(engine)
    return rates if idle is None else rates | {"device_idle_share": idle}


def steady_rates(engine: Engine, *, full: bool = True) -> dict[str, float]:
    """Tokens per second of one stream, of 64, and of a prompt, all warm."""
    length, count, long = (128, 64, 4096) if full else (4, 3, 40)
    one = answer(engine, [(prompt(engine, 1, 32), length)])
    load = [(prompt(engine, number, 32), length) for number in range(count)]
    return {
        "one_stream_tokens_per_s": length / one,
        "streams_tokens_per_s": count * length / answer(engine, load),
        "prompt_tokens_per_s": long / answer(engine, [(prompt(engine, 77, long), 1)]),
    }


def prompt(engine: Engine, seed: int, length: int) -> list[int]:
    """Tokens that no cache has seen."""
    rng = np.random.default_rng((time.time_ns(), seed))
    return random_prompt(rng, length, engine.resolved.vocab_size)


def warm_up(engine: Engine) -> None:
    """Let kernels be compiled and graphs be recorded."""
    for count in (1, 2, 3, 5, 9, 17, 33, 64):
        answer(engine, [(prompt(engine, number, 20), 4) for number in range(count)])


def answer(engine: Engine, load: Load) -> float:
    """Seconds until everything is answered."""
    for number, (token_ids, max_tokens) in enumerate(load):
        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
        engine.add(Request(request_id=str(number), prompt_token_ids=token_ids, sampling=params))
    began = time.perf_counter()
    while engine.has_work:
        engine.step()
    return time.perf_counter() - began


def idle_share(engine: Engine) -> float | None:
    """Of the time of some steps of 64 streams, what no kernel was running in. None where the
    profiler is not allowed to see kernels, as in many containers.
    """
    from torch.autograd import DeviceType  # type: ignore[attr-defined]
    from torch.profiler import ProfilerActivity, profile

    params = SamplingParams(temperature=0, max_tokens=200, ignore_eos=True)
    for number in range(64):
        ids = prompt(engine, number, 64)
        engine.add(Request(request_id=str(number), prompt_token_ids=ids, sampling=params))
    for _ in range(40):
        engine.step()
    on_gpu = engine.resolved.device != "cpu"
    with profile(
        activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    ) as profiler:
        for _ in range(30):
            engine.step()
        if on_gpu:
            torch.cuda.synchronize()
    while engine.has_work:
        engine.step()
    spans: list[tuple[float, float]] = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU)
    )
    if not spans:
        return None
    return 1 - covered(spans) / (spans[-1][1] - spans[0][0])


def covered(spans: list[tuple[float, float]]) -> float:
    """How long at least one of some spans, sorted by their start, is running."""
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
