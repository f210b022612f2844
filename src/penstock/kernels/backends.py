"""Which operations to use on which device, said aloud."""

import torch

from penstock.kernels.ops import REFERENCE, Ops


def choose_ops(device: torch.device, num_threads: int) -> tuple[Ops, list[str]]:
    """The fastest operations this machine has for the device, and what a person should know of the
    choice. On a CPU they compute on `num_threads` threads.
    """
    if device.type != "cpu":
        return REFERENCE, [f"Kernels: the torch reference on {device.type}, for every operation."]
    try:
        from penstock.kernels.cpu.backend import cpu_ops

        return cpu_ops(num_threads)
    except ImportError as error:
        return REFERENCE, [
            f"Kernels: the torch reference for every operation, many times slower ({error})."
        ]
