"""Triton's interpreter with exact conversions between floats.

Its own cuts bfloat16 off where a GPU rounds to the nearest, and makes other numbers of some in fp8;
torch converts as the hardware does.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

INTERPRETED = [
    pytest.mark.triton,
    # numpy, with which the interpreter computes, warns of what kernels mean to do
    pytest.mark.filterwarnings("ignore:.* encountered:RuntimeWarning"),
]
"""What tests of kernels in Triton are marked with."""

_TYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "fp8e4nv": torch.float8_e4m3fn,
}
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mend_conversions(patch: pytest.MonkeyPatch) -> None:
    """Have the interpreter convert as torch does, while the patch lasts."""
    import triton.runtime.interpreter as interpreter

    patch.setattr(interpreter, "_convert_float", _convert)


def multiply_elements_alike(patch: pytest.MonkeyPatch) -> None:
    """Have the interpreter's products of tiles add up every element in the same order, while the
    patch lasts. A GPU's do; numpy's library adds up some of a tile's rows otherwise than others.
    """
    import triton.runtime.interpreter as interpreter

    def create_dot(
        builder: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        left, right = (_numbers(each, d.data.dtype) for each in (a, b))
        total = np.zeros_like(d.data)
        for place in range(left.shape[1]):
            total += left[:, place, None] * right[place]
        return interpreter.TensorHandle(total + d.data, d.dtype.scalar)

    patch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def _numbers(tile: Any, dtype: Any) -> npt.NDArray[Any]:
    """A tile's numbers; fp8 is kept as bits."""
    if tile.dtype.name == "fp8e4nv":
        found = torch.from_numpy(np.ascontiguousarray(tile.data)).view(torch.uint8)
        return found.view(torch.float8_e4m3fn).float().numpy().astype(dtype)
    converted: npt.NDArray[Any] = tile.data.astype(dtype)
    return converted


def _convert(
    data: npt.NDArray[Any], source: Any, target: Any, rounding: Any
) -> npt.NDArray[np.generic]:
    """Floats of one of Triton's types as bits of another; round to nearest, as it is everywhere."""
    source, target = _TYPES[source.name], _TYPES[target.name]
    bits = torch.from_numpy(np.ascontiguousarray(data).view(f"i{source.itemsize}").astype(np.int64))
    floats = bits.to(_BITS[source.itemsize]).view(source).to(target)
    found: npt.NDArray[np.generic] = floats.view(_BITS[target.itemsize]).numpy()
    return found.view(f"u{target.itemsize}").reshape(data.shape)
