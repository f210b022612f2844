"""Products of rows and packed weights on a GPU, with all that follows them in the same pass.

One kernel takes every scheme, and plain linears as well as groups of rows that have a matrix each
(experts). int8 times int8 is summed in integers, fp8 times fp8 in float32; weights of four bits
become floats of the activations' type on their way to the tile's product.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from penstock.kernels.activation.triton import activated
from penstock.kernels.linear.triton_matrix import PackedMatrix
from penstock.kernels.triton.search import group_of, most_tiles, tile_of
from penstock.kernels.triton.target import dot_type

_TILES = ((16, 32, 256), (64, 64, 128), (128, 128, 64))
"""Rows, outputs and bytes of inputs of a tile: for so many rows, the last for any more."""
_ONE_TILE = _TILES[1]
"""The one for any number of rows where a row's sums must have one order: how a tile's product adds
up follows from its size.
"""


@dataclass(frozen=True, slots=True)
class Visits:
    """Rows sorted by expert: row i is `order[i]`, and expert e has rows starts[e] to starts[e + 1].

    Where x is gathered, x [T, K] has one row for `top_k` visits, and the result is in sorted order;
    else x is, and the result is put back into the order of the visits.
    """

    order: Tensor
    starts: Tensor
    top_k: int
    gathers: bool


@triton.jit
def _sum_whole(
    x, weight, source, is_row, column, is_column, width,
    DOT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Rows of x times outputs of a weight [N, K], whose elements are one number each."""
    ACC: tl.constexpr = tl.int32 if tl.int8 == DOT else tl.float32
    total = tl.zeros([BM, BN], ACC)
    for start in range(0, width, BK):
        k = start + tl.arange(0, BK)
        in_x = is_row[:, None] & (k < width)[None, :]
        in_weight = is_column[None, :] & (k < width)[:, None]
        left = tl.load(x + source[:, None] * width + k[None, :], mask=in_x, other=0.0)
        right = tl.load(weight + column[None, :] * width + k[:, None], mask=in_weight, other=0.0)
        total = tl.dot(left.to(DOT), right.to(DOT), total, input_precision="ieee", out_dtype=ACC)
    return total.to(tl.float32)


@triton.jit
def _sum_pairs(
    x, weight, scale, source, is_row, column, is_column, width, num_groups,
    HALF: tl.constexpr, DOT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The same of a weight in int4: a byte has two inputs that lie HALF apart."""
    total = tl.zeros([BM, BN], tl.float32)
    num_bytes = num_groups * HALF
    for start in range(0, num_bytes, BK):
        byte = start + tl.arange(0, BK)
        group = byte // HALF
        k = group * HALF + byte
        in_weight = is_column[None, :] & (byte < num_bytes)[:, None]
        place = column[None, :] * num_bytes + byte[:, None]
        pair = tl.load(weight + place, mask=in_weight, other=0).to(tl.int32)
        place = column[None, :] * num_groups + group[:, None]
        step = tl.load(scale + place, mask=in_weight, other=0.0).to(tl.float32)
        for high in tl.static_range(2):
            in_x = is_row[:, None] & (k + high * HALF < width)[None, :]
            at = source[:, None] * width + (k + high * HALF)[None, :]
            left = tl.load(x + at, mask=in_x, other=0.0)
            right = (((pair >> 4 * high) & 15) - 8).to(tl.float32) * step
            total = tl.dot(left.to(DOT), right.to(DOT), total, input_precision="ieee")
    return total


@triton.jit
def _affine(
    x, x_scale, weight, scale, bias, source, is_row, column, is_column, width, num_groups,
    HALF: tl.constexpr, DOT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of a linear's outputs, float32 [BM, BN], before what surrounds it."""
    if HALF > 0:
        y = _sum_pairs(
            x, weight, scale, source, is_row, column, is_column, width, num_groups, HALF, DOT, BM,
            BN, BK,
        )  # fmt: skip
    else:
        y = _sum_whole(x, weight, source, is_row, column, is_column, width, DOT, BM, BN, BK)
        if scale is not None:
            y *= tl.load(scale + column, mask=is_column, other=0.0)[None, :]
            y *= tl.load(x_scale + source, mask=is_row, other=0.0)[:, None]
    if bias is not None:
        y += tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _rows_of(order, starts, num_groups, num_rows, top_k, GATHERS: tl.constexpr, BM: tl.constexpr):
    """Of this program's tile: which rows of x it reads, which of the output it writes, whether
    there is such a row, and the group whose weight they meet.
    """
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    if order is None:
        source = row
        target = row
        is_row = row < num_rows
        group = 0
    else:
        group = group_of(starts, num_groups, tl.program_id(0), BM)
        start, count, begin = tile_of(starts, group, tl.program_id(0), BM)
        is_row = begin + tl.arange(0, BM) < count
        row = (start + begin + tl.arange(0, BM)).to(tl.int64)
        visit = tl.load(order + row, mask=is_row, other=0)
        source = visit // top_k if GATHERS else row
        target = row if GATHERS else visit
    return source, target, is_row, group


@triton.jit(do_not_specialize=["num_rows"])
def _product(
    x, x_scale, weight, scale, bias, residual, out, num_rows, num_outputs, width, num_groups,
    order, starts, num_matrices, top_k,
    GATED: tl.constexpr, ACTIVATION: tl.constexpr, GATHERS: tl.constexpr, HALF: tl.constexpr,
    DOT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    source, target, is_row, group = _rows_of(
        order, starts, num_matrices, num_rows, top_k, GATHERS, BM
    )
    column = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    is_column = column < num_outputs
    first = group * (2 * num_outputs if GATED else num_outputs)
    y = activated(
        _affine(
            x, x_scale, weight, scale, bias, source, is_row, first + column, is_column, width,
            num_groups, HALF, DOT, BM, BN, BK,
        ),
        ACTIVATION,
    )  # fmt: skip
    if GATED:
        y *= _affine(
            x, x_scale, weight, scale, bias, source, is_row, first + num_outputs + column,
            is_column, width, num_groups, HALF, DOT, BM, BN, BK,
        )  # fmt: skip
    place = target[:, None] * num_outputs + column[None, :]
    is_there = is_row[:, None] & is_column[None, :]
    if residual is not None:
        y += tl.load(residual + place, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=is_there)


def product(
    x: Tensor,
    x_scale: Tensor | None,
    weight: PackedMatrix,
    *,
    dtype: torch.dtype,
    bias: Tensor | None = None,
    gated: bool = False,
    activation: str | None = None,
    residual: Tensor | None = None,
    visits: Visits | None = None,
    deterministic: bool = False,
) -> Tensor:
    """Rows x [T, K], rounded with x_scale [T] where the weight is int8 or fp8, times a weight: [T,
    N] in dtype, or [T, N / 2] of a gated one. With visits, a row for each of them.
    """
    num_rows = len(x) if visits is None else len(visits.order)
    num_outputs = weight.out_features // (2 if gated else 1)
    out = torch.empty(num_rows, num_outputs, dtype=dtype, device=x.device)
    order, starts, num_matrices, top_k, gathers = _groups(visits)
    rows, columns, num_bytes = _tile(-(-num_rows // num_matrices), deterministic)
    num_tiles = triton.cdiv(num_rows, rows)
    if visits is not None:
        num_tiles = most_tiles(num_rows, num_matrices, rows)
    sizes = num_rows, num_outputs, weight.in_features, weight.num_groups
    tensors = x, x_scale, weight.values, weight.scale, bias, residual, out
    if out.numel():
        _product[(num_tiles, triton.cdiv(num_outputs, columns))](
            *(*tensors, *sizes, order, starts, num_matrices, top_k),
            GATED=gated,
            ACTIVATION=activation,
            GATHERS=gathers,
            HALF=weight.group_size // 2,
            DOT=dot_type(x.dtype),
            BM=rows,
            BN=columns,
            BK=num_bytes // x.dtype.itemsize,
        )
    return out


def _groups(visits: Visits | None) -> tuple[Tensor | None, Tensor | None, int, int, bool]:
    """Visits as the kernel takes them; without any, all rows meet one matrix."""
    if visits is None:
        return None, None, 1, 1, False
    num_matrices = len(visits.starts) - 1
    return visits.order, visits.starts, num_matrices, visits.top_k, visits.gathers


def _tile(num_rows: int, deterministic: bool) -> tuple[int, int, int]:
    if deterministic:
        return _ONE_TILE
    return next((tile for tile in _TILES if num_rows <= tile[0]), _TILES[-1])
