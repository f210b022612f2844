"""Which operations to use on which device, said aloud."""

from dataclasses import replace

import torch

from penstock.kernels.ops import REFERENCE, Ops


def choose_ops(
    device: torch.device, num_threads: int, *, deterministic: bool = False
) -> tuple[Ops, list[str]]:
    """The fastest operations this machine has for the device, and what a person should know of the
    choice. On a CPU they compute on `num_threads` threads. With deterministic, a token's bits do
    not depend on what else is computed, unless these are the reference's.
    """
    try:
        if device.type == "cpu":
            from penstock.kernels.cpu.backend import cpu_ops

            return cpu_ops(num_threads)
        from penstock.kernels.triton.backend import triton_ops

        return triton_ops(device, deterministic=deterministic)
    except ImportError as error:
        return REFERENCE, [
            f"Kernels: the torch reference for every operation, many times slower ({error})."
        ]


def with_flashinfer(ops: Ops, dtype: torch.dtype) -> Ops:
    """A GPU's operations with FlashInfer's attention in their midst, for queries, keys and values
    of dtype. Raises ImportError where that is not installed.
    """
    from flashinfer import BatchPrefillWithPagedKVCacheWrapper

    from penstock.kernels.paged_attention.flashinfer import FlashInfer

    attention = FlashInfer(BatchPrefillWithPagedKVCacheWrapper, dtype)
    return replace(
        ops,
        plan_attention=attention.plan_attention,
        paged_attention=attention.paged_attention,
    )
