"""Snapshots made where kernels in Triton compute, here in the interpreter: they serve there, and
are refused by any other kernels.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.kernels.packed import Packing
from penstock.models.manifest import read_manifest
from penstock.vocabulary.errors import ModelError
from penstock.vocabulary.sampling_params import SamplingParams
from tests.engine.tiny_engine import continuation, make_engine
from tests.engine.triton_laws import SMALL, triton_everywhere
from tests.kernels.interpreter import INTERPRETED
from tests.tiny_models import make_tiny_checkpoint

pytest.importorskip("triton")
pytestmark = INTERPRETED

PROMPT = [3, 1, 4, 1, 5]
GREEDY = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With linears and experts."""
    return make_tiny_checkpoint("mixtral", tmp_path_factory.mktemp("model"))


def make_snapshot(model_dir: Path, out: Path, weights: str) -> Path:
    made = CliRunner().invoke(
        app, ["snapshot", str(model_dir), str(out), "--weights", weights, "--device", "cpu"]
    )
    assert made.exit_code == 0, made.output
    return out


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_a_snapshot_answers_as_the_model_that_it_was_made_of(
    model_dir: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with triton_everywhere():
        snapshot = make_snapshot(model_dir, tmp_path / "snapshot", weights)
        origin = read_manifest(snapshot).origin
        assert (origin.instruction_set, origin.weights) == ("triton", weights)
        expected = continuation(make_engine(model_dir, weights=weights, **SMALL), PROMPT, GREEDY)
        monkeypatch.delattr("penstock.engine.weights.packed_slots")  # nothing is packed again
        assert continuation(make_engine(snapshot, **SMALL), PROMPT, GREEDY) == expected


def test_kernels_that_pack_otherwise_refuse_it_and_say_how(model_dir: Path, tmp_path: Path) -> None:
    own = make_engine(model_dir, **SMALL).runner.ops.packing
    here = make_snapshot(model_dir, tmp_path / "here", "int8")
    with triton_everywhere():
        there = make_snapshot(model_dir, tmp_path / "there", "int8")
        assert_refused(here, own, Packing("triton", 1))
    assert_refused(there, Packing("triton", 1), own)


def assert_refused(snapshot: Path, packed: Packing, taken: Packing) -> None:
    with pytest.raises(ModelError) as refused:
        make_engine(snapshot, **SMALL)
    assert f"was packed for {packed.instruction_set}, layout {packed.version}" in str(refused.value)
    assert f"take {taken.instruction_set}, layout {taken.version}" in str(refused.value)
    assert "penstock snapshot" in refused.value.remedy
