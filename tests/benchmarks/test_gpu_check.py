"""What `scripts/gpu-check` does, as far as it goes without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts.gpu_check import conformance, deterministic, laws
from scripts.gpu_check.__main__ import GRACE_S, PARTS
from scripts.gpu_check.engine import covered, measure
from scripts.gpu_check.random_model import SHAPES, random_engine

from penstock.kernels.norm.contract import Norm
from tests.kernels.instruction_sets import ISAS
from tests.kernels.interpreter import mend_conversions
from tests.kernels.table import TABLE
from tests.tiny_models import make_tiny_checkpoint

ROOT = Path(__file__).parents[2]
TINY = SHAPES["Qwen2.5-0.5B"] | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_at_once() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [ROOT / "scripts" / "gpu-check"],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no GPU here" in done.stderr


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_an_engine_with_random_weights_is_measured_under_every_load(weights: str) -> None:
    with random_engine(
        TINY, device="cpu", weights=weights, kv_cache_gib=0.01, token_budget=48, max_num_seqs=8
    ) as engine:
        rates = measure(engine, full=False)
    assert set(rates) == {
        "warm_up_s",
        "one_stream_tokens_per_s",
        "streams_tokens_per_s",
        "prompt_tokens_per_s",
        "sharegpt_out_tokens_per_s",
    }
    assert all(rate > 0 for rate in rates.values())


def test_time_in_which_several_kernels_run_counts_once() -> None:
    assert covered([(0.0, 2.0), (1.0, 3.0), (1.5, 2.5), (5.0, 6.0)]) == 4.0


def test_tensors_are_moved_wherever_they_are() -> None:
    norm = Norm("rms", torch.ones(3), None, 1e-5)
    found = conformance.moved((1, [torch.ones(2)], norm), torch.device("meta"))
    assert found[1][0].is_meta and found[2].weight.is_meta and found[2].bias is None


def test_the_laws_are_tried_on_the_device_that_is_named(tmp_path: Path) -> None:
    directory = make_tiny_checkpoint("qwen3", tmp_path)
    assert laws.broken_laws(directory, laws.DRAWN, "cpu") == ([], 6)


@pytest.mark.skipif(not ISAS, reason="no kernels were built for this processor")
def test_their_bits_are_tried_too(tmp_path: Path) -> None:
    directory = make_tiny_checkpoint("qwen3", tmp_path)
    settings = {"device": "cpu", "weights": "int8"}
    assert laws.broken_bits(directory, deterministic.REPORTED, **settings) == ([], 5)


def test_a_mode_s_rates_are_shares_of_the_usual_ones() -> None:
    found = deterministic._shares({"a": 50.0, "b": 7.0}, {"a": 200.0})
    assert found == {"Llama-3-8B: a": "50 (25%)", "Llama-3-8B: b": "7"}


def test_all_parts_together_take_less_than_nine_minutes() -> None:
    assert sum(PARTS.values()) + len(PARTS) * GRACE_S <= 9 * 60


@pytest.mark.triton
def test_a_case_of_the_table_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("penstock.kernels.triton.backend").kernels
    mend_conversions(monkeypatch)
    cpu = torch.device("cpu")
    conformance._case(TABLE["rope_write_kv"], "one token", kernels(), cpu)
    conformance._linear(kernels(), "int8", 1, cpu)
    wrong = TABLE["norm"].cases["one token"]
    entry = type(TABLE["norm"])(lambda ops, *args: args[0], TABLE["norm"].formula, {"x": wrong})
    with pytest.raises(AssertionError, match="not close"):
        conformance._case(entry, "x", kernels(), cpu)
