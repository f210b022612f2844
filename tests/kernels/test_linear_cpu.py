"""The linear kernels on every instruction set, and that a row's bits are its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from penstock.kernels.norm.contract import Norm
from penstock.kernels.ops import REFERENCE
from penstock.kernels.quantization import (
    INT4_MAX,
    INT4_MIN,
    Quantized,
    dequantize,
    quantize_groups,
    quantize_rows,
)
from tests.kernels import formulas
from tests.kernels.instruction_sets import ISAS, cpu_ops

pytestmark = pytest.mark.skipif(not ISAS, reason="no kernels were built here")

SCHEMES = ["float32", "bfloat16", "int8", "int4"]
ROWS = [1, 2, 5, 6, 7, 12, 13, 16, 17, 31, 33, 48, 67]
SHAPES = [(1, 1), (5, 7), (16, 32), (17, 33), (38, 64), (65, 100), (130, 257), (48, 1100)]
"""Of weights: outputs, inputs."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def stood_for(weight: Tensor, scheme: str) -> Tensor:
    """What a weight is after it was rounded to its scheme."""
    if scheme == "int8":
        return dequantize(quantize_rows(weight))
    if scheme == "int4":
        return dequantize(quantize_groups(weight))
    return weight.to(getattr(torch, scheme)).float()


def rounded(x: Tensor, scheme: str) -> Tensor:
    return dequantize(quantize_rows(x)) if scheme.startswith("int") else x


def surroundings(rows: int, outputs: int, inputs: int, kind: str) -> dict[str, Any]:
    rms = Norm("rms", normal(inputs) + 2, None, 1e-5)
    centred = Norm("layer", normal(inputs) + 2, normal(inputs, seed=1), 1e-5)
    return {
        "bare": {},
        "normed": {"norm": rms},
        "all around": {
            "norm": centred,
            "activation": "silu",
            "residual": normal(rows, outputs, seed=3),
        },
    }[kind]


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_shape_gives_the_product_of_the_rounded_numbers(backend: str, scheme: str) -> None:
    ops = cpu_ops()
    for out_features, in_features in SHAPES:
        weight, bias = normal(out_features, in_features), normal(out_features)
        packed = ops.pack_linear(weight, bias, scheme)
        for rows in ROWS:
            x = normal(rows, in_features)
            expected = formulas.linear(rounded(x, scheme), stood_for(weight, scheme), bias)
            actual = ops.linear(x, packed).double()
            torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("gated", [False, True])
def test_what_surrounds_a_product_is_what_the_reference_does(
    backend: str, scheme: str, gated: bool
) -> None:
    ops, weight = cpu_ops(), normal(66, 70)
    outputs = 33 if gated else 66
    for bias in (None, normal(66)):
        packed = ops.pack_linear(weight, bias, scheme, gated=gated)
        plain = REFERENCE.pack_linear(stood_for(weight, scheme), bias, "float32", gated=gated)
        for rows in (1, 7, 67):
            x = normal(rows, 70)
            around = surroundings(rows, outputs, 70, "all around")
            h = rounded(REFERENCE.norm(x, around.pop("norm")), scheme)
            expected = REFERENCE.linear(h, plain, **around)
            actual = ops.linear(x, packed, **surroundings(rows, outputs, 70, "all around"))
            # A norm's last bit may turn one rounded number into its neighbour.
            tolerance = 0.1 if scheme.startswith("int") else 1e-4
            torch.testing.assert_close(actual, expected, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["bare", "normed", "all around"])
@pytest.mark.parametrize("gated", [False, True])
def test_a_row_has_the_same_bits_alone_and_anywhere_in_a_batch(
    backend: str, scheme: str, kind: str, gated: bool
) -> None:
    ops, in_features = cpu_ops(), 600
    packed = ops.pack_linear(normal(90, in_features), normal(90), scheme, gated=gated)
    outputs = 45 if gated else 90
    x = normal(211, in_features)
    around = surroundings(211, outputs, in_features, kind)
    whole = ops.linear(x, packed, **around)
    residual = around.pop("residual", None)
    for first, count in [(0, 1), (100, 1), (210, 1), (3, 2), (5, 7), (17, 16), (90, 33), (11, 67)]:
        part = slice(first, first + count)
        if residual is not None:
            around["residual"] = residual[part].contiguous()
        alone = ops.linear(x[part].contiguous(), packed, **around)
        assert torch.equal(alone, whole[part])


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_bits_do_not_depend_on_the_number_of_threads(backend: str, scheme: str) -> None:
    import penstock.kernels.cpu._native as native

    ops, x, before = cpu_ops(), normal(130, 200), native.num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            native.set_num_threads(threads)
            packed = ops.pack_linear(normal(700, 200), None, scheme)
            results.append(ops.linear(x, packed))
    finally:
        native.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("group_size", [32, 64, 128, 256])
def test_groups_of_any_size_that_checkpoints_have(backend: str, group_size: int) -> None:
    ops, weight = cpu_ops(), quantize_groups(normal(40, 300), group_size)
    packed = ops.pack_linear(weight, None, "int4")
    for rows in (1, 6, 19):
        x = normal(rows, 300)
        expected = formulas.linear(rounded(x, "int4"), dequantize(weight))
        torch.testing.assert_close(ops.linear(x, packed).double(), expected, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_largest_numbers_do_not_saturate(backend: str, scheme: str) -> None:
    ops, inputs, group = cpu_ops(), 640, 128
    for sign in (-1, 1):
        x = torch.full((17, inputs), 127.0 * sign)
        extremes = [127, -127] if scheme == "int8" else [INT4_MAX, INT4_MIN]
        values = torch.tensor(extremes, dtype=torch.int8).repeat_interleave(20)
        values = values[:, None].expand(40, inputs).contiguous()
        weight = Quantized(values, torch.ones(40))
        if scheme == "int4":
            weight = Quantized(values, torch.ones(40, inputs // group), group)
        packed = ops.pack_linear(weight, None, scheme)
        expected = (x[:1] @ weight.values.float().T).expand(17, 40)
        assert torch.equal(ops.linear(x, packed), expected)


@pytest.mark.parametrize("backend", ISAS)
def test_integers_and_scales_pack_like_the_floats_they_came_from(backend: str) -> None:
    ops, weight, bias = cpu_ops(), normal(50, 90), normal(50)
    x = normal(9, 90)
    for scheme, quantized in (("int8", quantize_rows(weight)), ("int4", quantize_groups(weight))):
        from_floats = ops.pack_linear(weight, bias, scheme)
        from_integers = ops.pack_linear(quantized, bias, scheme)
        assert torch.equal(from_floats.panels, from_integers.panels)
        assert torch.equal(ops.linear(x, from_floats), ops.linear(x, from_integers))


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_of_any_float_type_are_packed(backend: str, scheme: str) -> None:
    ops, x = cpu_ops(), normal(3, 77)
    for dtype in (torch.bfloat16, torch.float16):
        weight = normal(21, 77).to(dtype)
        half = ops.linear(x, ops.pack_linear(weight, None, scheme))
        full = ops.linear(x, ops.pack_linear(weight.float(), None, scheme))
        assert torch.equal(half, full)


@pytest.mark.parametrize("backend", ISAS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_zeros_and_no_rows_at_all(backend: str, scheme: str) -> None:
    ops = cpu_ops()
    weight = normal(20, 64)
    weight[3] = 0
    packed = ops.pack_linear(weight, None, scheme)
    x = torch.cat((torch.zeros(1, 64), torch.full((1, 64), 1e-42), normal(1, 64)))
    y = ops.linear(x, packed)
    assert y.isfinite().all()
    assert (y[0] == 0).all()
    assert (y[:, 3] == 0).all()
    assert ops.linear(x[:0], packed).shape == (0, 20)


@pytest.mark.parametrize("backend", ISAS)
def test_tensors_that_do_not_fit_are_refused(backend: str) -> None:
    ops = cpu_ops()
    packed = ops.pack_linear(normal(20, 64), None, "int8")
    for x in (normal(3, 63), normal(3, 64).double(), normal(64, 3).T):
        with pytest.raises(ValueError):
            ops.linear(x, packed)
    with pytest.raises(ValueError):
        ops.linear(normal(3, 64), packed, residual=normal(3, 21))
    with pytest.raises(ValueError):
        ops.linear(normal(3, 64), packed, norm=Norm("rms", normal(63), None, 1e-5))
