"""What a launch asks of torch, no GPU has to answer before the host goes on: steps with every
option are watched on a CPU, where a wait costs nothing and nobody would notice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from penstock.engine.engine import Engine
from penstock.engine.runner import Launched
from penstock.engine.sampler import MASKS_AND_PENALTIES
from penstock.engine.transfers import NUM_BUFFERS, Array, Arrival, Transfers
from penstock.kernels.sampling.contract import Shaping
from penstock.scheduling.sequence import Plan
from penstock.vocabulary.grammar import Grammar
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.every_option import EVERY_OPTION, KEY
from tests.engine.test_planning_ahead import Recordings, ahead
from tests.engine.tiny_engine import make_engine
from tests.engine.tiny_writers import make_tiny_writer
from tests.engine.triton_laws import triton_everywhere
from tests.engine.watch import Watch, WouldWait, watching_gpu_kernels
from tests.kernels.instruction_sets import ISAS
from tests.kernels.interpreter import INTERPRETED
from tests.tiny_models import make_tiny_checkpoint

SMALL_STEPS = {"token_budget": 40, "max_num_seqs": 9, "watermark_key": KEY}
CONSTRAINED = Request(
    request_id="constrained",
    prompt_token_ids=[7, 9],
    sampling=SamplingParams(max_tokens=3, seed=1, grammar=Grammar.regex("[a-c]{9}")),
)


class WatchedTransfers(Transfers):
    """What goes to and fro here is meant to."""

    def __init__(self, device: torch.device, watch: Watch) -> None:
        super().__init__(device)
        self.num_sent = 0
        self._watch = watch

    def to_device(self, arrays: list[Array]) -> list[Tensor]:
        self.num_sent += 1
        with self._watch.paused():
            return super().to_device(arrays)

    def to_host(self, tensors: list[Tensor]) -> Arrival:
        with self._watch.paused():
            return super().to_host(tensors)


@dataclass
class Seen:
    """What the launches of an engine were like."""

    num_sent: list[int]
    num_mixed: int = 0
    """Steps with single tokens beside longer slices."""
    num_ahead: int = 0
    """Steps with tokens that the host does not know yet."""


def watched(engine: Engine, watch: Watch) -> Seen:
    """Watch every launch from now on."""
    transfers = WatchedTransfers(engine.runner.transfers.device, watch)
    launch, seen = engine.runner.launch, Seen([])

    def watched_launch(plan: Plan) -> Launched:
        counts = {part.count for part in plan.slices}
        seen.num_mixed += 1 in counts and len(counts) > 1
        seen.num_ahead += any(part.end > len(part.sequence.token_ids) for part in plan.slices)
        before = transfers.num_sent
        with watch.on():
            launched = launch(plan)
        seen.num_sent.append(transfers.num_sent - before)
        return launched

    engine.runner.transfers, engine.runner.launch = transfers, watched_launch
    return seen


def answer(engine: Engine, requests: list[Request]) -> set[str]:
    """Answer all requests at once: the names of those that came to their end."""
    for request in requests:
        engine.add(request)
    engine.grammars.wait()
    finished = set()
    while engine.has_work:
        finished |= {each.request_id for each in engine.step() if each.finish_reason}
    return finished


@contextmanager
def triton(watch: Watch) -> Iterator[None]:
    pytest.importorskip("triton")
    with triton_everywhere() as patch:
        watching_gpu_kernels(patch, watch)
        yield


def assert_nothing_waits(
    watch: Watch, model_dir: Path, requests: list[Request], **settings: object
) -> None:
    recordings = Recordings()
    engine = ahead(make_engine(model_dir, **SMALL_STEPS, **settings), recordings.record)
    seen = watched(engine, watch)
    assert answer(engine, requests) == {request.request_id for request in requests}
    assert seen.num_mixed and seen.num_ahead and recordings.count
    assert 2 * max(seen.num_sent) <= NUM_BUFFERS


def test_every_option_is_asked_for() -> None:
    options = {name for names, _ in MASKS_AND_PENALTIES for name in names}
    options |= {field.name for field in fields(Shaping)} | {"logprobs", "prompt_logprobs"}
    untouched = SamplingParams()
    asked = {
        name
        for request in (*EVERY_OPTION, CONSTRAINED)
        for name in options
        if getattr(request.sampling, name) != getattr(untouched, name)
    }
    assert asked == options


@pytest.mark.skipif(not ISAS, reason="the reference waits, and no kernels were built here")
def test_no_option_waits_for_the_device(tmp_path: Path) -> None:
    directory = make_tiny_writer("byte_level", tmp_path)
    assert_nothing_waits(Watch(), directory, [*EVERY_OPTION, CONSTRAINED])


@pytest.mark.parametrize("family", [pytest.param("mixtral", marks=INTERPRETED)])
def test_no_kernel_for_gpus_waits_either(family: str, tmp_path: Path) -> None:
    """Of experts, too, nobody counts how many tokens each is to have."""
    watch = Watch()
    with triton(watch):
        directory = make_tiny_checkpoint(family, tmp_path)
        assert_nothing_waits(watch, directory, EVERY_OPTION, kv_dtype="int8")


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 2).any()),
        lambda x: [0, 1, 2, 3][x[0]],
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: x[x > 1],
        lambda x: x.index_put_((x > 1,), x[:2] + 1),
        lambda x: x.nonzero(),
        lambda x: torch.argwhere(x),
        lambda x: x.masked_select(x > 1),
        lambda x: x.unique(),
        lambda x: x.bincount(),
        lambda x: x.repeat_interleave(x),
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: x.masked_fill(x > 1, x[0]),
        lambda x: x[[0, 1]],
        lambda x: torch.tensor([1], device=x.device),
    ],
)
def test_whoever_reads_the_device_is_noticed(read: Callable[[Tensor], object]) -> None:
    watch, x = Watch(), torch.tensor([1, 2, 3])
    with torch.inference_mode(), watch.on():
        with watch.paused():
            read(x.clone())
        with pytest.raises(WouldWait):
            read(x)


def test_what_no_host_must_know_is_let_pass() -> None:
    watch, x, at = Watch(), torch.tensor([1, 2, 3]), torch.tensor([2, 0])
    with torch.inference_mode(), watch.on():
        x[at] += x[at].where(x[at] > 1, 0).masked_fill(x[at] > 1, 5)
        x.index_put_((at,), x.new_full((), 4)).index_fill_(0, at, 1)
        found = torch.repeat_interleave(x, output_size=4).to(torch.float32).sort(stable=True)
    assert found.values.tolist() == [0, 1, 1, 2]
