"""How a tensor's memory crosses to a kernel: as an address, once it is certain what lies there."""

import torch
from torch import Tensor


def address(tensor: Tensor, name: str, dtype: torch.dtype = torch.float32) -> int:
    """Where a dense CPU tensor's elements begin. Raises ValueError for any other tensor."""
    if tensor.dtype is not dtype or not tensor.is_contiguous() or not tensor.is_cpu:
        raise ValueError(
            f"{name} is {tensor.dtype} of strides {tensor.stride()} on {tensor.device}; "
            f"kernels take dense {dtype} on the CPU."
        )
    return tensor.data_ptr()
