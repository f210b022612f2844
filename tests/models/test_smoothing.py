"""Outliers in activations do not hurt, and nothing else changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE, Ops
from penstock.models.loading import load_decoder, read_config
from penstock.models.smoothing import equalizing_factors, norm_readers
from tests.models.outliers import with_outliers
from tests.paged_steps import logits_of
from tests.tiny_models import TINY_FAMILIES, VOCAB_SIZE, make_tiny_checkpoint

PROMPT = torch.randint(VOCAB_SIZE, (19,), generator=torch.Generator().manual_seed(0)).tolist()


def exact(ops: Ops) -> Ops:
    """Ops that keep weights in float32 whatever they are told: what was done to them shows, and
    rounding does not.
    """

    def pack_linear(
        weight: Tensor, bias: Tensor | None, scheme: str, *, gated: bool = False
    ) -> Any:
        return ops.pack_linear(weight, bias, "float32", gated=gated)

    def pack_experts(gate_up: list[Tensor], down: list[Tensor], scheme: str) -> Any:
        return ops.pack_experts(gate_up, down, "float32")

    return replace(ops, pack_linear=pack_linear, pack_experts=pack_experts)


def logits(directory: Path, weights: str, ops: Ops = REFERENCE) -> Tensor:
    decoder = load_decoder(
        directory,
        read_config(directory),
        weights=weights,
        dtype=torch.float32,
        device=torch.device("cpu"),
        ops=ops,
    )
    return logits_of(decoder, [PROMPT], chunk=len(PROMPT))[0]


def distance(actual: Tensor, expected: Tensor) -> float:
    """How far logits are off at most tokens: an expert less or more at one of them is no matter."""
    return float(((actual - expected).std(dim=-1) / expected.std(dim=-1)).median())


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_smoothing_changes_no_bit_of_the_exact_model(name: str, tmp_path: Path) -> None:
    make_tiny_checkpoint(name, tmp_path)
    assert torch.equal(logits(tmp_path, "int8", exact(REFERENCE)), logits(tmp_path, "float32"))


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_outliers_in_activations_hurt_rounded_models_no_more_than_others(
    name: str, tmp_path: Path
) -> None:
    plain = make_tiny_checkpoint(name, tmp_path / "plain")
    spoilt = with_outliers(plain, tmp_path / "spoilt")
    expected = logits(plain, "float32")
    torch.testing.assert_close(logits(spoilt, "float32"), expected, atol=1e-3, rtol=0)
    for weights in ("int8", "int4"):
        usual = distance(logits(plain, weights), expected)
        assert distance(logits(spoilt, weights), expected) < 1.5 * usual


def test_a_channel_is_brought_down_to_the_usual_ratio_and_none_is_raised() -> None:
    norm = torch.tensor([1.0, -64.0, 1.0, 0.01, 1.0, 0.0, 1.0])
    readers = [torch.ones(3, 7), torch.full((2, 7), 0.5)]
    readers[0][:, 4] = readers[1][:, 4] = 1 / 256
    assert equalizing_factors(norm, readers).tolist() == [1, 8, 1, 1, 16, 1, 1]


def test_a_channel_that_nothing_reads_or_writes_stays_as_it_is() -> None:
    assert equalizing_factors(torch.zeros(3), [torch.ones(2, 3)]).tolist() == [1, 1, 1]
    assert equalizing_factors(torch.ones(3), [torch.zeros(2, 3)]).tolist() == [1, 1, 1]


def test_a_norm_whose_output_is_the_stream_is_left_alone(tmp_path: Path) -> None:
    make_tiny_checkpoint("opt-norm-after", tmp_path)
    assert not norm_readers(read_config(tmp_path).spec)
