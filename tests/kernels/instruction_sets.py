"""Instruction sets that kernels can be tested on here: none where the extension was not built."""

from importlib.util import find_spec

from penstock.kernels.ops import Ops

ISAS: list[str] = []
if find_spec("penstock.kernels.cpu._native"):
    import penstock.kernels.cpu._native as _native

    ISAS = _native.usable_isas()


def cpu_ops() -> Ops:
    """The CPU's operations, on whatever instruction set is in use."""
    from penstock.kernels.cpu.backend import kernels

    return kernels()
