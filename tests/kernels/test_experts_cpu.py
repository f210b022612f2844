"""The mixture of experts on every instruction set: a token's bits are its own, and its weights can
be written down and restored.
"""

import pytest
import torch
from torch import Tensor

from penstock.kernels.ops import REFERENCE, Ops
from tests.kernels.instruction_sets import ISAS, cpu_ops

pytestmark = pytest.mark.skipif(not ISAS, reason="no kernels were built here")

SCHEMES = ["float32", "bfloat16", "int8", "int4"]
EXPERTS, WIDTH, INNER = 6, 70, 40


def mixture(ops: Ops, scheme: str) -> tuple[object, Tensor, Tensor]:
    """Packed experts, and the inputs and logits of 100 tokens; the last expert is never best."""
    generator = torch.Generator().manual_seed(0)
    gate_up = torch.randn(EXPERTS, 2 * INNER, WIDTH, generator=generator) / 8
    down = torch.randn(EXPERTS, WIDTH, INNER, generator=generator) / 8
    x = torch.randn(100, WIDTH, generator=generator)
    logits = torch.randn(100, EXPERTS, generator=generator)
    logits[:, -1] = -50
    return ops.pack_experts(list(gate_up), list(down), scheme), x, logits


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize(
    ("scheme", "tolerance"), list(zip(SCHEMES, [1e-5, 1e-5, 0.05, 0.05], strict=True))
)
def test_experts_compute_what_the_reference_does(
    backend: str, scheme: str, tolerance: float
) -> None:
    packed, x, logits = mixture(cpu_ops(), scheme)
    plain, _, _ = mixture(REFERENCE, scheme)
    for top_k in (1, 2, 5):
        actual = cpu_ops().experts(x, logits, packed, top_k, "silu")
        expected = REFERENCE.experts(x, logits, plain, top_k, "silu")
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_token_has_the_same_bits_alone_and_among_others(backend: str, scheme: str) -> None:
    ops = cpu_ops()
    packed, x, logits = mixture(ops, scheme)
    whole = ops.experts(x, logits, packed, 3, "silu")
    for first, count in [(0, 1), (99, 1), (3, 2), (20, 17), (40, 51)]:
        part = slice(first, first + count)
        assert torch.equal(ops.experts(x[part], logits[part], packed, 3, "silu"), whole[part])
    assert ops.experts(x[:0], logits[:0], packed, 3, "silu").shape == (0, WIDTH)


@pytest.mark.parametrize("backend", ISAS)
def test_of_equal_experts_the_first_are_visited(backend: str) -> None:
    ops = cpu_ops()
    packed, x, logits = mixture(ops, "float32")
    tied = torch.zeros_like(logits)
    preferred = tied.clone()
    preferred[:, 2:] = -1000
    actual, expected = (ops.experts(x, each, packed, 2, "silu") for each in (tied, preferred))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", ISAS)
def test_experts_are_restored_from_their_parts_and_facts(backend: str) -> None:
    ops = cpu_ops()
    packed, x, logits = mixture(ops, "int4")
    restored = ops.restore_experts(packed.facts(), packed.parts())  # type: ignore[attr-defined]
    actual = ops.experts(x, logits, restored, 2, "silu")
    assert torch.equal(actual, ops.experts(x, logits, packed, 2, "silu"))


@pytest.mark.parametrize("backend", ISAS)
def test_inputs_that_do_not_fit_are_refused(backend: str) -> None:
    ops = cpu_ops()
    packed, x, logits = mixture(ops, "int8")
    for bad_x, bad_logits, top_k in (
        (x[:, 1:], logits, 2),
        (x, logits[:, 1:], 2),
        (x, logits[1:], 2),
        (x, logits, 0),
        (x, logits, EXPERTS + 1),
    ):
        with pytest.raises(ValueError):
            ops.experts(bad_x, bad_logits, packed, top_k, "silu")
