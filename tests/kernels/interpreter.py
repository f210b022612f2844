"""Triton's interpreter with exact conversions between floats.

Its own cuts bfloat16 off where a GPU rounds to the nearest, and makes other numbers of some in fp8;
torch converts as the hardware does.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

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


def _convert(
    data: npt.NDArray[Any], source: Any, target: Any, rounding: Any
) -> npt.NDArray[np.generic]:
    """Floats of one of Triton's types as bits of another; round to nearest, as it is everywhere."""
    source, target = _TYPES[source.name], _TYPES[target.name]
    bits = torch.from_numpy(np.ascontiguousarray(data).view(f"i{source.itemsize}").astype(np.int64))
    floats = bits.to(_BITS[source.itemsize]).view(source).to(target)
    found: npt.NDArray[np.generic] = floats.view(_BITS[target.itemsize]).numpy()
    return found.view(f"u{target.itemsize}").reshape(data.shape)
