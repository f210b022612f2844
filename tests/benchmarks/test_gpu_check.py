"""What `scripts/gpu-check` does, as far as it goes without a GPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from scripts.gpu_check import ceilings, conformance, deterministic, laws, waiting
from scripts.gpu_check import engine as gpu_engine
from scripts.gpu_check.__main__ import GRACE_S, PARTS, main
from scripts.gpu_check.engine import covered, measure
from scripts.gpu_check.part import REHEARSAL, Part
from scripts.gpu_check.random_model import random_engine

from penstock.kernels.norm.contract import Norm
from tests.engine.every_option import EVERY_OPTION, KEY
from tests.kernels.instruction_sets import ISAS
from tests.kernels.interpreter import mend_interpreter, multiply_elements_alike
from tests.kernels.table import TABLE
from tests.tiny_models import make_tiny_checkpoint

ROOT = Path(__file__).parents[2]


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
        REHEARSAL.shapes["Qwen2.5-0.5B"], **REHEARSAL.engine, weights=weights
    ) as engine:
        rates = measure(engine, full=False)
    assert set(rates) == {
        "warm_up_s",
        "one_stream_tokens_per_s",
        "streams_tokens_per_s",
        "prompt_tokens_per_s",
        "sharegpt_out_tokens_per_s",
        "device_idle_share",
    }
    assert all(rate >= 0 for rate in rates.values())


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


def test_a_step_that_waits_for_the_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for what torch does to whoever waits, where there is a GPU."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    engine = waiting.tiny_engine("qwen3", device="cpu", watermark_key=KEY)
    num_steps, places = waiting.waits(engine, EVERY_OPTION)
    assert not places and modes == ["default", *["error", "default"] * num_steps]

    def report(*values: object) -> None:
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    engine = waiting.tiny_engine("qwen3", device="cpu", watermark_key=KEY)
    monkeypatch.setattr(engine.runner, "_read_prompts", report)
    [place] = waiting.waits(engine, EVERY_OPTION)[1]
    assert place.startswith("test_gpu_check.py:") and place.endswith("synchronizing CUDA operation")
    assert modes[-1] == "default"


def test_a_mode_s_rates_are_shares_of_the_usual_ones() -> None:
    found = deterministic.shares({"a": 50.0, "b": 7.0}, {"a": 200.0})
    assert found == {"Llama-3-8B: a": "50 (25%)", "Llama-3-8B: b": "7"}


def test_all_parts_together_take_less_than_nine_minutes() -> None:
    assert sum(PARTS.values()) + len(PARTS) * GRACE_S <= 9 * 60


@pytest.mark.triton
@pytest.mark.timeout(600)
@pytest.mark.skipif(not ISAS, reason="no kernels were built for this processor")
@pytest.mark.filterwarnings("ignore")
def test_every_part_runs_to_its_end_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a size that a CPU and the interpreter can bear: but for what asks the GPU itself, every
    line is run before somebody has nine minutes of one.
    """
    pytest.importorskip("triton")
    mend_interpreter(monkeypatch)
    multiply_elements_alike(monkeypatch)
    out = tmp_path / "found.json"
    names = [name for name in PARTS if name != "peer"]
    assert main(["--out", str(out), "--parts", *names], REHEARSAL) == 0, capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found) == {"machine", *names}
    table = capsys.readouterr().out.split("All figures")[1]
    assert {line.split()[0] for line in table.splitlines()[2:]} == set(names)
    assert not [name for name in names if found[name]["wrong"] or "error" in found[name]]


def test_what_a_part_found_before_it_was_interrupted_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("triton")

    def copy_and_wait(part: Part) -> None:
        part.summary["copy"] = "1.00"
        part.wrong.append("a sum")
        raise TimeoutError("the part took too long")

    monkeypatch.setattr(ceilings, "run", copy_and_wait)
    arguments = ["--out", str(tmp_path / "found.json"), "--parts", "ceilings"]
    assert main(arguments, REHEARSAL) == 1
    table = [line.split() for line in capsys.readouterr().out.splitlines() if "ceilings" in line]
    assert ["ceilings", "copy", "1.00"] in table
    assert ["ceilings", "wrong,", "1", "a", "sum"] in table
    assert ["ceilings", "error", "TimeoutError:", *["the", "part", "took", "too", "long"]] in table


def test_a_model_that_cannot_be_measured_does_not_keep_others_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rates(scale: object, shape: str, weights: str) -> dict[str, float]:
        if weights == "int4":
            raise RuntimeError("out of memory")
        return {"rate": 2.0}

    monkeypatch.setattr(gpu_engine, "_rates", rates)
    part = Part(time.monotonic() + 60, REHEARSAL, {})
    gpu_engine.run(part)
    assert part.wrong == ["Llama-3-8B int4: RuntimeError: out of memory"]
    assert part.summary["Llama-3-8B int8: rate"] == "2.000"


@pytest.mark.triton
def test_a_case_of_the_table_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("penstock.kernels.triton.backend").kernels
    mend_interpreter(monkeypatch)
    cpu = torch.device("cpu")
    conformance._case(TABLE["rope_write_kv"], "one token", kernels(), cpu)
    conformance._linear(kernels(), "int8", 1, cpu)
    wrong = TABLE["norm"].cases["one token"]
    entry = type(TABLE["norm"])(lambda ops, *args: args[0], TABLE["norm"].formula, {"x": wrong})
    with pytest.raises(AssertionError, match="not close"):
        conformance._case(entry, "x", kernels(), cpu)
