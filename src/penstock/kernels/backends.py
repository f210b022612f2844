"""Which operations to use on which device, said aloud."""

import torch

from penstock.kernels.ops import REFERENCE, Ops


def choose_ops(device: torch.device) -> tuple[Ops, list[str]]:
    """The fastest operations this machine has for the device, and what a person should know of the
    choice.
    """
    return REFERENCE, [f"Kernels: the torch reference on {device.type}, for every operation."]
