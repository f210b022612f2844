"""What a step costs, counted token by token and weight by weight."""

from types import SimpleNamespace

import pytest

from penstock.engine.cost import _keys, _pairs
from penstock.engine.machine_use import MachineLimits
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine
from tests.tiny_models import make_tiny_checkpoint


@pytest.mark.parametrize("window", [None, 1, 4, 100])
@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 7), (3, 1), (3, 9), (20, 2)])
def test_a_token_meets_itself_and_those_before_it_within_the_window(start, count, window):
    part = SimpleNamespace(start=start, count=count)
    seen = [range(max(0, t + 1 - (window or t + 1)), t + 1) for t in range(start, start + count)]
    assert _pairs(part, window) == sum(len(keys) for keys in seen)
    assert _keys(part, window) == len({key for keys in seen for key in keys})


def test_an_engine_counts_every_product_and_reads_weights_once_a_step(tmp_path):
    engine = make_engine(make_tiny_checkpoint("llama", tmp_path), weights="float32")
    continuation(engine, list(range(3, 13)), SamplingParams(temperature=0, max_tokens=3))
    stats = engine.stats()
    layers = 2 * (32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 48)
    head = 128 * 32
    assert stats.num_steps == 3
    assert stats.num_multiply_adds == 12 * layers + 3 * head + 2 * 2 * 32 * sum(range(1, 13))
    keys_and_values = 2 * 2 * 2 * 8 * 4
    assert stats.num_bytes_read == 3 * 4 * (layers + head) + (10 + 11 + 12) * keys_and_values
    assert stats.busy_s > 0


@pytest.mark.parametrize("plans_ahead", [False, True])
def test_each_step_tells_what_it_took_and_which_share_of_the_machine_that_is(tmp_path, plans_ahead):
    engine = make_engine(make_tiny_checkpoint("llama", tmp_path), weights="float32")
    engine.plans_ahead = plans_ahead
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    engine.add(Request(request_id="r", prompt_token_ids=list(range(3, 13)), sampling=params))
    steps = []
    while engine.has_work:
        engine.step()
        steps += [engine.last_step] if engine.last_step else []
        engine.limits = MachineLimits(multiply_adds_per_s=1e9, bytes_read_per_s=2e9)
    stats = engine.stats()
    assert sum(step.num_bytes_read for step in steps) == stats.num_bytes_read > 0
    assert sum(step.num_multiply_adds for step in steps) == stats.num_multiply_adds > 0
    assert steps[-1].bandwidth_share == pytest.approx(
        steps[-1].num_bytes_read / steps[-1].duration_s / 2e9
    )
    assert steps[-1].arithmetic_share == pytest.approx(
        steps[-1].num_multiply_adds / steps[-1].duration_s / 1e9
    )
    if not plans_ahead:  # nobody knew the limits before the first step
        assert steps[0].bandwidth_share is steps[0].arithmetic_share is None


def test_a_mixture_reads_only_the_experts_that_tokens_visit(tmp_path):
    engine = make_engine(make_tiny_checkpoint("mixtral", tmp_path), weights="float32")
    cost = engine.cost
    assert (cost.num_experts, cost.top_k, cost.expert) == (4, 2, 2 * 3 * 32 * 48)
