"""How numbers are rounded to 8 and 4 bits, and what their products are."""

import pytest
import torch
from torch import Tensor

from penstock.kernels.quantization import (
    Quantized,
    dequantize,
    int4_linear,
    int8_linear,
    quantize_groups,
    quantize_rows,
)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_the_largest_of_a_row_becomes_127_and_halves_go_to_the_even_integer():
    x = torch.tensor([[254.0, -1.0, 3.0, -5.0, 7.0], [0.5, -0.25, 0.0, 0.1, -0.5]])
    values, scale, _ = quantize_rows(x)
    assert scale.tolist() == [2.0, torch.tensor(0.5 / 127).item()]
    assert values.tolist() == [[127, 0, 2, -2, 4], [127, -64, 0, 25, -127]]


def test_rows_may_be_tokens_outputs_or_heads():
    heads = random(3, 2, 16)
    values, scale, _ = quantize_rows(heads)
    assert values.shape == (3, 2, 16) and scale.shape == (3, 2)
    for token in range(3):
        alone = quantize_rows(heads[token])
        assert torch.equal(alone.values, values[token])
        assert torch.equal(alone.scale, scale[token])


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-44])
def test_rows_that_are_as_good_as_zero_are_zero(size):
    for rounded in (
        quantize_rows(torch.full((2, 33), size)),
        quantize_groups(random(2, 33) * size),
    ):
        assert not rounded.values.any() and not rounded.scale.any()


def test_what_is_not_a_number_stays_so():
    x = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    back = dequantize(quantize_rows(x))
    assert back[0].isnan().all() and not back[1].isnan().any()


def test_no_value_is_further_than_half_a_step_from_its_integer():
    x = random(50, 65) * torch.logspace(-20, 20, 50)[:, None]
    rounded = quantize_rows(x)
    step = rounded.scale[:, None]
    assert ((dequantize(rounded) - x).abs() <= 0.5001 * step).all()


def test_the_largest_of_a_group_becomes_minus_eight_whatever_its_sign():
    weight = torch.tensor([[-4.0, 3.0, 0.25, -0.75, 8.0, -8.0, 7.0, 1.0]])
    values, scale, group_size = quantize_groups(weight, group_size=4)
    assert group_size == 4
    assert scale.tolist() == [[0.5, -1.0]]
    assert values.tolist() == [[-8, 6, 0, -2, -8, 7, -7, -1]]


@pytest.mark.parametrize(("width", "groups"), [(32, 1), (33, 2), (31, 1), (96, 3), (1, 1)])
def test_the_last_group_may_be_smaller(width, groups):
    weight = random(5, width)
    rounded = quantize_groups(weight)
    assert rounded.values.shape == weight.shape and rounded.scale.shape == (5, groups)
    last = quantize_groups(weight[:, 32 * (groups - 1) :])
    assert torch.equal(rounded.scale[:, -1:], last.scale)
    assert torch.equal(dequantize(rounded)[:, 32 * (groups - 1) :], dequantize(last))


def test_scales_of_groups_lose_nothing_in_bfloat16():
    scale = quantize_groups(random(64, 96)).scale
    assert torch.equal(scale, scale.bfloat16().float())


def test_rounding_what_was_rounded_changes_nothing():
    """Of int8 always; of 4 bits where each group's largest magnitude was kept."""
    eight = quantize_rows(random(7, 50))
    assert torch.equal(quantize_rows(dequantize(eight)).values, eight.values)
    four = quantize_groups(random(7, 50))
    assert torch.equal(dequantize(quantize_groups(dequantize(four))), dequantize(four))


@pytest.mark.parametrize("width", [1, 33, 1024, 5000])
def test_integer_products_are_exact_in_any_width(width):
    """Even where every product is as large as it can be, and a float would drop the last bits."""
    extreme = torch.full((3, width), 127, dtype=torch.int8)
    x = Quantized(extreme, torch.tensor([1.0, 2.0, 0.0]))
    weight = Quantized(torch.cat((extreme[:1], -extreme[:1])), torch.tensor([1.0, 0.5]))
    exact = 127 * 127 * width
    expected = torch.tensor([[exact, -exact / 2], [2 * exact, -exact], [0, 0]]).float()
    assert torch.equal(int8_linear(x, weight), expected)


@pytest.mark.parametrize("width", [1, 31, 64, 1100])
def test_a_product_is_that_of_the_numbers_the_integers_stand_for(width):
    x, matrix = random(5, width), random(9, width)
    rows = quantize_rows(x)
    for linear, weight in (
        (int8_linear, quantize_rows(matrix)),
        (int4_linear, quantize_groups(matrix)),
        (int4_linear, quantize_groups(matrix, group_size=128)),
    ):
        expected = dequantize(rows).double() @ dequantize(weight).double().T
        torch.testing.assert_close(linear(rows, weight).double(), expected, atol=1e-4, rtol=1e-5)


def test_a_token_is_computed_alone_as_in_company():
    rows, weight = quantize_rows(random(67, 80)), random(9, 80)
    for linear, packed in (
        (int8_linear, quantize_rows(weight)),
        (int4_linear, quantize_groups(weight)),
    ):
        together = linear(rows, packed)
        alone = linear(Quantized(rows.values[5:6], rows.scale[5:6]), packed)
        assert torch.equal(together[5:6], alone)
