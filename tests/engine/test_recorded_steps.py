"""Steps of single tokens on a CPU: recorded the second time, then replayed, and the same."""

import mmap
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from penstock.engine.engine import Engine
from penstock.kernels.recording import NotRecorded
from penstock.kernels.triton import recording as gpu_recording
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.test_laws import DRAWN, GREEDY, OTHERS, PROMPT
from tests.engine.tiny_engine import continuation, make_engine, run, tokens
from tests.kernels.attention_cases import case
from tests.kernels.instruction_sets import cpu_ops
from tests.kernels.paged_cache import BLOCK_SIZE, filled_cache
from tests.tiny_models import TINY_FAMILIES, make_tiny_checkpoint

recording = pytest.importorskip("penstock.kernels.cpu.recording", reason="no kernels here")
memory = pytest.importorskip("penstock.kernels.cpu.memory")

COMPUTED_BY_TORCH = ("mixtral", "opt")
"""Families of which torch adds two tensors in every step: that cannot be recorded."""


@pytest.fixture(scope="module", params=list(TINY_FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model_dir(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(family, tmp_path_factory.mktemp("model"))


def recorded_sizes(engine: Engine) -> list[int]:
    graphs = engine.runner.graphs
    assert graphs is not None
    return [size for size, step in graphs._steps.items() if step.replay is not None]


def unrecorded(model_dir: Path) -> Engine:
    engine = make_engine(model_dir)
    engine.runner.graphs = None
    return engine


def test_what_is_replayed_is_what_would_be_computed(family: str, model_dir: Path) -> None:
    requests = {f"other-{i}": (other, DRAWN) for i, other in enumerate(OTHERS)}
    requests["greedy"] = (PROMPT, GREEDY)
    engine = make_engine(model_dir)
    expected, found = run(unrecorded(model_dir), requests), run(engine, requests)
    for name in requests:
        assert tokens(found[name][0]) == tokens(expected[name][0])
    assert bool(recorded_sizes(engine)) == (not family.startswith(COMPUTED_BY_TORCH))


@pytest.fixture(scope="module")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_it_is_the_same_to_the_last_bit_however_weights_are_kept(
    llama_dir: Path, weights: str
) -> None:
    def logprobs(engine: Engine) -> list[float]:
        params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, logprobs=0)
        outputs = run(engine, {"r": (PROMPT, params)})["r"][0]
        return [entry.logprob for output in outputs for entry in output.logprobs]

    engine, plain = make_engine(llama_dir, weights=weights), make_engine(llama_dir, weights=weights)
    plain.runner.graphs = None
    assert logprobs(engine) == logprobs(plain)
    assert recorded_sizes(engine) == [1]


def test_a_step_with_a_slice_of_a_prompt_is_computed_as_it_stands(llama_dir: Path) -> None:
    engine = make_engine(llama_dir, token_budget=9)
    continuation(engine, PROMPT, SamplingParams(temperature=0, max_tokens=1))
    assert recorded_sizes(engine) == []


def test_recordings_share_memory_and_take_little(llama_dir: Path) -> None:
    engine = make_engine(llama_dir)
    for count in (1, 2, 4):
        run(
            engine, {f"{i}": (each[:9], GREEDY) for i, each in enumerate([PROMPT, *OTHERS][:count])}
        )
    graphs = engine.runner.graphs
    assert graphs is not None and recorded_sizes(engine) == [1, 2, 4]
    ends = [step.replay().data_ptr() for step in graphs._steps.values() if step.replay]
    assert max(ends) - min(ends) < 2**16


@pytest.fixture
def doubled() -> Callable[[torch.Tensor], torch.Tensor]:
    """A kernel that doubles rows of 16."""
    from penstock.kernels.linear.cpu import linear, pack_linear

    packed = pack_linear(2 * torch.eye(16), None, "float32")
    return lambda x: linear(x, packed)


class TestRecorder:
    """What a recording is, apart from engines."""

    def test_it_reads_its_inputs_where_they_lay(self, doubled) -> None:
        x = torch.ones(3, 16)
        replay = recording.Recorder()(lambda: doubled(doubled(x)))
        x.fill_(5)
        assert replay().eq(20).all()

    def test_what_torch_computes_is_refused_by_name(self, doubled) -> None:
        x = torch.ones(3, 16)
        with pytest.raises(NotRecorded, match=r"aten\.add"):
            recording.Recorder()(lambda: doubled(x) + 1)

    def test_after_a_refusal_kernels_compute_as_before(self, doubled) -> None:
        x = torch.ones(3, 16)
        recorder = recording.Recorder()
        with pytest.raises(NotRecorded):
            recorder(lambda: x + 1)
        assert doubled(x).eq(2).all()

    def test_a_step_that_takes_more_than_the_arena_is_refused(
        self, doubled, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x = torch.ones(100, 16)
        monkeypatch.setattr(recording, "_ARENA_BYTES", 4096)
        with pytest.raises(NotRecorded, match="memory"):
            recording.Recorder()(lambda: doubled(x))

    def test_a_place_is_free_again_when_its_tensor_is_gone(self) -> None:
        arena = memory.Arena(mmap.mmap(-1, 4096))
        first, second = arena.empty((8, 16)), arena.empty((8, 16))
        place = first.data_ptr()
        del first
        assert arena.empty((4, 16)).data_ptr() == place
        assert second.data_ptr() == place + 512
        with pytest.raises(memory.ArenaFull):
            arena.empty((1024,))

    def test_a_replay_notices_what_its_kernels_would_have_noticed(self) -> None:
        from penstock.kernels.embedding.cpu import embedding

        ids, table = torch.zeros(2, dtype=torch.int64), torch.rand(4, 16)
        replay = recording.Recorder()(lambda: embedding(ids, table, torch.float32))
        ids[1] = 4
        with pytest.raises(IndexError, match="id 4 at position 1"):
            replay()

    def test_attention_reads_its_sinks_where_they_lay(self) -> None:
        ops, generator = cpu_ops(), torch.Generator().manual_seed(0)
        build = case((1, 9), (1, 30), soft_cap=2.0, sinks=True)
        query, keys, values, layout, shape, sinks = build(generator)
        cache = filled_cache(ops, keys, values)

        def compute() -> torch.Tensor:
            plan = ops.plan_attention(layout, shape, BLOCK_SIZE)
            return ops.paged_attention(query, cache, plan, sinks)

        replay, before = recording.Recorder()(compute), compute()
        query.neg_()
        sinks.add_(1)
        expected = compute()
        assert torch.equal(replay(), expected) and not torch.equal(expected, before)

    def test_recording_imports_no_compiler(self) -> None:
        code = (
            "import sys, torch; from penstock.kernels.cpu.recording import Recorder\n"
            "x = torch.ones(3, 16); Recorder()(lambda: x.view(48))\n"
            "sys.exit('torch._dynamo' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_gpu_without_memory_for_a_recording_computes_as_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compute() -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda _: nullcontext())
    with pytest.raises(NotRecorded, match="no memory left"):
        gpu_recording.record(compute)
