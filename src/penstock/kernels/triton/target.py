"""What the kernels run on: a GPU, or Triton's interpreter on a CPU, where tests watch them.

With TRITON_INTERPRET=1 in the environment before Triton is imported, the same kernels compute with
numpy on the CPU, slowly. Nothing in this module needs a GPU to be imported.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Kernels run in Triton's interpreter."""

_DOT_TYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.float32 if INTERPRETED else tl.bfloat16,
    torch.float16: tl.float16,
    torch.int8: tl.int8,
    torch.float8_e4m3fn: tl.float8e4nv,
}


def dot_type(dtype: torch.dtype) -> tl.dtype:
    """The type in which numbers of dtype enter a tile's product, whose sums are float32 or int32.

    The interpreter multiplies the bits of bfloat16 as if they were integers; there, float32 it is.
    """
    if dtype not in _DOT_TYPES:
        raise ValueError(f"Kernels multiply no {dtype}.")
    return _DOT_TYPES[dtype]


def power_of_two(count: int, *, least: int = 1) -> int:
    """The smallest power of two that is neither below count nor below least, which is one."""
    return max(least, 1 << max(0, count - 1).bit_length())


def num_multiprocessors(device: torch.device) -> int:
    """How many programs run side by side at least."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def check_rows(tensor: Tensor, name: str, *shape: int | None) -> Tensor:
    """The tensor, dense. Raises ValueError unless its shape is this one, None being any length:
    a kernel computes with addresses, and would read beyond its end.
    """
    fits = tensor.dim() == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {list(tensor.shape)}; kernels take [{wanted}].")
    return tensor.contiguous()
