"""A step planned before the one before it is read: the same texts, and nothing waits for tokens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engine import loading
from penstock.engine.engine import Engine
from penstock.engine.graphs import Graphs, powers_of_two
from penstock.kernels.ops import REFERENCE
from penstock.kernels.recording import Compute
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import Cancel, FinishReason, Output, Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.test_laws import DRAWN, GREEDY, OTHERS, PROMPT
from tests.engine.tiny_engine import make_engine, run, tokens
from tests.engine.tiny_writers import make_tiny_writer
from tests.tiny_models import make_tiny_checkpoint

PENALISED = SamplingParams(
    temperature=0,
    max_tokens=20,
    ignore_eos=True,
    repetition_penalty=1.7,
    frequency_penalty=0.5,
    presence_penalty=0.3,
    min_tokens=4,
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint("llama", tmp_path_factory.mktemp("model"))


class Recordings:
    """As much of a GPU's graphs as a CPU can have: what is recorded is computed again."""

    def __init__(self) -> None:
        self.count = 0

    def record(self, compute: Compute) -> Compute:
        self.count += 1
        return compute


def ahead(engine: Engine, record: Callable[[Compute], Compute] | None = None) -> Engine:
    """The engine, planning ahead, and with recorded steps if they can be recorded."""
    engine.plans_ahead = True
    if record is not None:
        runner = engine.runner
        runner.graphs = Graphs(
            runner.decoder,
            runner.cache,
            record,
            sizes=powers_of_two(8),
            max_model_len=engine.max_model_len,
            spare_block=runner.cache.num_blocks - 1,
        )
    return engine


def everything() -> dict[str, tuple[list[int], SamplingParams]]:
    several = SamplingParams(n=3, seed=5, max_tokens=12, ignore_eos=True, logprobs=2)
    reading = SamplingParams(temperature=0, max_tokens=5, prompt_logprobs=1)
    return {
        "greedy": (PROMPT, GREEDY),
        "drawn": (OTHERS[0], DRAWN),
        "penalised": (OTHERS[1], PENALISED),
        "several": (OTHERS[2], several),
        "reading": (PROMPT[:20], reading),
        "short": (PROMPT[:7], SamplingParams(max_tokens=1, seed=3)),
    }


def reported_ids(outputs: list[Output]) -> list[int]:
    entries = [each for output in outputs for each in (*output.prompt_logprobs, *output.logprobs)]
    return [entry.token_id for entry in entries]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"token_budget": 7, "max_num_seqs": 3},
        {"num_blocks": 8, "promise_tokens": 1, "prefix_caching": False},
    ],
    ids=["plenty", "small steps", "preemption"],
)
def test_every_output_is_the_same(model_dir: Path, limits: dict[str, int], recorded: bool) -> None:
    expected = run(make_engine(model_dir, **limits), everything())
    recordings = Recordings()
    engine = ahead(make_engine(model_dir, **limits), recordings.record if recorded else None)
    found = run(engine, everything())
    for name, outputs in expected.items():
        for index, each in outputs.items():
            assert tokens(found[name][index]) == tokens(each)
            assert found[name][index][-1].finish_reason is each[-1].finish_reason
            assert reported_ids(found[name][index]) == reported_ids(each)
    assert not engine.has_work and engine.scheduler.blocks.num_used == 0
    assert bool(recordings.count) == recorded
    if "num_blocks" in limits:
        assert engine.stats().num_preemptions > 0


def test_an_end_token_is_noticed_one_step_late_and_nothing_follows_it(model_dir: Path) -> None:
    plain = run(make_engine(model_dir), {"r": (PROMPT, GREEDY)})["r"][0]
    sixth = tokens(plain)[5]
    first = tokens(plain).index(sixth)
    params = SamplingParams(temperature=0, max_tokens=20, stop_token_ids=[sixth])
    engine = ahead(make_engine(model_dir))
    outputs = run(engine, {"r": (PROMPT, params), "other": (OTHERS[0], DRAWN)})["r"][0]
    assert tokens(outputs) == tokens(plain)[: first + 1]
    assert outputs[-1].finish_reason is FinishReason.STOP
    assert engine.scheduler.blocks.num_used == 0


def test_the_first_output_comes_with_the_second_step(model_dir: Path) -> None:
    engine = ahead(make_engine(model_dir))
    engine.add(Request(request_id="r", prompt_token_ids=PROMPT, sampling=GREEDY))
    assert engine.step() == []
    assert len(engine.step()) == 1
    engine.cancel(Cancel(request_id="r"))
    assert engine.has_work  # a step is on its way
    assert engine.step() == []
    assert not engine.has_work and engine.scheduler.blocks.num_used == 0


def test_nothing_is_said_of_a_prompt_that_nobody_wants_read_any_more(model_dir: Path) -> None:
    engine = ahead(make_engine(model_dir, token_budget=16))
    reading = SamplingParams(max_tokens=5, prompt_logprobs=1)
    engine.add(Request(request_id="read", prompt_token_ids=PROMPT, sampling=reading))
    engine.add(
        Request(request_id="embed", prompt_token_ids=[5], sampling=SamplingParams(), embeds=True)
    )
    engine.step()
    engine.cancel(Cancel(request_id="read"))
    engine.cancel(Cancel(request_id="embed"))
    assert engine.step() == []
    assert not engine.has_work and engine.scheduler.blocks.num_used == 0


def test_no_step_is_planned_for_a_sequence_whose_last_token_is_in_flight(model_dir: Path) -> None:
    engine = ahead(make_engine(model_dir))
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    assert len(tokens(run(engine, {"r": (PROMPT, params)})["r"][0])) == 3
    assert engine.stats().num_steps == 3


def test_a_cached_prefix_is_found_by_the_step_that_follows(model_dir: Path) -> None:
    engine = ahead(make_engine(model_dir))
    alone = tokens(run(engine, {"r": (PROMPT, GREEDY)})["r"][0])
    again = tokens(run(engine, {"r": (PROMPT, GREEDY)})["r"][0])
    assert again == alone
    assert engine.stats().prefix_hits == 32


def test_a_grammar_is_followed_as_if_nothing_were_planned_ahead(tmp_path: Path) -> None:
    directory = make_tiny_writer("byte_level", tmp_path)
    params = SamplingParams(max_tokens=30, seed=1, grammar=Grammar.regex("[a-c]{9}yes"))
    requests = {"r": (PROMPT, params), "other": (OTHERS[1], DRAWN)}
    expected, found = (
        run(engine, requests) for engine in (make_engine(directory), ahead(make_engine(directory)))
    )
    for name, outputs in expected.items():
        assert tokens(found[name][0]) == tokens(outputs[0])


def test_a_recorded_step_reads_and_writes_nothing_for_rows_that_nobody_has(model_dir: Path) -> None:
    """Three sequences in a graph of four: after one has left, its old slot is not written again."""
    recordings = Recordings()
    engine = ahead(make_engine(model_dir, prefix_caching=False), recordings.record)
    requests = {
        str(number): (OTHERS[1], SamplingParams(temperature=0, max_tokens=count, ignore_eos=True))
        for number, count in enumerate((4, 9, 14))
    }
    found = run(engine, requests)
    for number, (prompt, params) in requests.items():
        alone = run(make_engine(model_dir), {"r": (prompt, params)})["r"][0]
        assert tokens(found[number][0]) == tokens(alone)


def test_a_gpu_without_kernels_records_no_steps(model_dir: Path) -> None:
    """The reference cuts attention up by lengths that only the host knows; replays keep them."""
    runner = make_engine(model_dir).runner
    resolved = replace(make_engine(model_dir).resolved, device="cuda:0")
    runner.decoder.ops = REFERENCE
    assert loading.graphs_of(runner.decoder, runner.cache, resolved) is None
    runner.decoder.ops = replace(REFERENCE, recorder=lambda: Recordings().record)
    assert loading.graphs_of(runner.decoder, runner.cache, resolved) is not None
