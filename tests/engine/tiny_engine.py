"""Engines over tiny random checkpoints, small enough to make dozens of them in a test."""

from pathlib import Path

from penstock.engine.engine import Engine
from penstock.engine.loading import load_engine, prepare
from penstock.engine.settings import EngineSettings
from penstock.scheduling.blocks import Blocks
from penstock.scheduling.scheduler import Scheduler
from penstock.vocabulary.messages import Output, Request
from penstock.vocabulary.sampling_params import SamplingParams


def make_engine(
    model_dir: Path,
    *,
    num_blocks: int = 64,
    block_size: int = 16,
    token_budget: int = 64,
    max_num_seqs: int = 8,
    prefix_caching: bool = True,
    promise_tokens: int = 64,
    kv_cache_gib: float = 0.01,
    **settings,
) -> Engine:
    """An engine with the given scheduler in place of the one fitted to the machine."""
    prepared = prepare(
        EngineSettings(model=str(model_dir), kv_cache_gib=kv_cache_gib, **settings),
        model_dir,
        "tiny",
    )
    engine = load_engine(prepared)
    engine.scheduler = Scheduler(
        Blocks(num_blocks, block_size, prefix_caching=prefix_caching),
        token_budget=token_budget,
        max_num_seqs=max_num_seqs,
        promise_tokens=promise_tokens,
    )
    assert num_blocks <= engine.runner.cache.num_blocks
    return engine


def run(
    engine: Engine, requests: dict[str, tuple[list[int], SamplingParams]]
) -> dict[str, dict[int, list[Output]]]:
    """Answer all requests at once: for each, its completions' outputs by index."""
    for request_id, (prompt, params) in requests.items():
        engine.add(Request(request_id=request_id, prompt_token_ids=prompt, sampling=params))
    outputs: dict[str, dict[int, list[Output]]] = {name: {} for name in requests}
    while engine.has_work or engine.grammars.num_waiting:
        engine.wait()
        for output in engine.step():
            outputs[output.request_id].setdefault(output.index, []).append(output)
    return outputs


def tokens(outputs: list[Output]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


def continuation(engine: Engine, prompt: list[int], params: SamplingParams) -> list[int]:
    """The tokens of one request's first completion."""
    return tokens(run(engine, {"r": (prompt, params)})["r"][0])
