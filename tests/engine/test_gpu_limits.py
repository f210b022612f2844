"""What shares of a GPU are held against; measured here on a CPU, at sizes that it bears."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from penstock.engine import gpu_limits
from penstock.engine.machine_use import measure_limits
from penstock.engine.settings import Resolved
from tests.engine.tiny_engine import make_engine
from tests.tiny_models import make_tiny_checkpoint


@pytest.fixture
def resolved(tmp_path: Path) -> Resolved:
    engine = make_engine(make_tiny_checkpoint("llama", tmp_path))
    return replace(engine.resolved, device="cuda:1", dtype="bfloat16")


def test_a_copy_and_a_product_are_timed() -> None:
    cpu = torch.device("cpu")
    assert gpu_limits.measured_bandwidth(cpu, num_bytes=2**16) > 0
    assert gpu_limits.measured_flops(cpu, torch.bfloat16, size=16) > 0


def test_a_product_s_operations_are_half_as_many_multiplications(
    monkeypatch: pytest.MonkeyPatch, resolved: Resolved
) -> None:
    """Of the type of the activations, on the engine's own device."""
    asked = []
    found = {("cuda:1", torch.bfloat16): 600.0, ("cuda:1", None): 7.0}

    def measured(device: torch.device, dtype: torch.dtype | None = None) -> float:
        asked.append((str(device), dtype))
        return found[asked[-1]]

    monkeypatch.setattr(gpu_limits, "measured_flops", measured)
    monkeypatch.setattr(gpu_limits, "measured_bandwidth", measured)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    limits = measure_limits(resolved)
    assert limits is not None
    assert (limits.multiply_adds_per_s, limits.bytes_read_per_s) == (300.0, 7.0)


def test_without_memory_to_measure_with_there_are_no_limits(
    monkeypatch: pytest.MonkeyPatch, resolved: Resolved
) -> None:
    def full(*values: object) -> float:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(gpu_limits, "measured_flops", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert measure_limits(resolved) is None
