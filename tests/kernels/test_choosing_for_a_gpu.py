"""Which operations a GPU gets, and what is said of them; none need be here."""

from typing import Any

import pytest
import torch

from penstock.kernels.backends import choose_ops
from penstock.kernels.ops import REFERENCE, Ops

pytest.importorskip("triton")


def ops_of(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None = None
) -> tuple[Ops, str]:
    """The operations for a GPU that claims this, and all that is said of the choice."""

    def told(value: Any) -> Any:
        return lambda device: value

    monkeypatch.setattr(torch.cuda, "get_device_capability", told(capability))
    monkeypatch.setattr(torch.cuda, "get_device_name", told("Some GPU"))
    monkeypatch.setattr(torch.version, "hip", hip)
    ops, notes = choose_ops(torch.device("cuda:0"), 1)
    return ops, " ".join(notes)


@pytest.mark.parametrize(
    ("capability", "has_fp8"), [((8, 0), False), ((8, 9), True), ((9, 0), True), ((12, 0), True)]
)
def test_from_ampere_on_every_operation_has_a_kernel_and_from_ada_on_fp8(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], has_fp8: bool
) -> None:
    ops, said = ops_of(monkeypatch, capability)
    assert ("fp8" in ops.kv_dtypes) == has_fp8
    assert said == "Kernels: Penstock's own in Triton, on cuda:0."


def test_an_older_one_gets_the_reference_and_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ops, said = ops_of(monkeypatch, (7, 5))
    assert ops is REFERENCE
    assert "Some GPU has compute capability 7.5, and Penstock's kernels take 8.0 or above" in said


def test_of_amd_s_it_is_said_that_nobody_has_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their floats of eight bits have another form on some."""
    ops, said = ops_of(monkeypatch, (9, 4), hip="7.1")
    assert "fp8" not in ops.kv_dtypes
    assert "AMD's GPUs are untested" in said


def test_steps_are_recorded_where_kernels_compute_and_only_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference cuts attention up by lengths that only the host knows; replays keep them."""
    recorders = [ops_of(monkeypatch, each)[0].recorder() for each in ((9, 0), (7, 5))]
    assert recorders[0] is not None
    assert recorders[1] is None
