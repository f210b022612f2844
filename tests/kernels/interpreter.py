"""Triton's interpreter, mended: it converts floats exactly, and does nothing twice.

Its own conversions cut bfloat16 off where a GPU rounds to the nearest, and make other numbers of
some in fp8; torch converts as the hardware does.
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
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
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mend_interpreter(patch: pytest.MonkeyPatch) -> None:
    """Have the interpreter convert as torch does, and spare itself work, while the patch lasts."""
    import triton.runtime.interpreter as interpreter

    patch.setattr(interpreter, "_convert_float", _convert)
    patch.setattr(interpreter, "_patch_lang", _once_for_each_module(interpreter._patch_lang))
    # Every sum of integers is computed again in 64 bits, to see whether 32 were enough; here, where
    # no tensor has more than thousands of elements, they always are.
    builder = interpreter.interpreter_builder
    patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))


def _once_for_each_module(prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The interpreter goes through all names of Triton's language whenever a kernel calls a
    function, which takes longer than what the function computes. Once for each module that has
    some is enough. The language stays prepared, for nothing is compiled where it is interpreted.
    """
    prepared = set()
    nothing_to_restore = SimpleNamespace(restore=lambda: None)

    def prepare_once(function: Any) -> Any:
        if function.__module__ not in prepared:
            prepare(function)
            prepared.add(function.__module__)
        return nothing_to_restore

    return prepare_once


def multiply_elements_alike(patch: pytest.MonkeyPatch) -> None:
    """Have the interpreter's products of tiles add up every element in the same order, while the
    patch lasts. A GPU's do; numpy's library adds up some of a tile's rows otherwise than others.
    """
    import triton.runtime.interpreter as interpreter

    def create_dot(
        builder: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        left, right = (_numbers(each, d.data.dtype) for each in (a, b))
        # along an axis that is not the last, numpy adds up one after the other
        total = (left[:, :, None] * right[None]).sum(axis=1, dtype=d.data.dtype)
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
    bits = torch.from_numpy(np.array(data, order="C", ndmin=1).view(f"i{source.itemsize}"))
    floats = bits.view(source).to(target)
    found: npt.NDArray[np.generic] = floats.view(_BITS[target.itemsize]).numpy()
    return found.view(f"u{target.itemsize}").reshape(data.shape)
