"""How much of what the machine can do an engine made use of."""

from dataclasses import dataclass
from typing import NamedTuple

from penstock.engine.host import give_memory_back
from penstock.engine.settings import Resolved
from penstock.vocabulary.messages import EngineStats


class Shares(NamedTuple):
    """How much of the limits was used. More than all of the bandwidth means that a cache held what
    else would have come from memory.
    """

    arithmetic: float
    bandwidth: float


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """What all threads together can do, measured on this machine."""

    multiply_adds_per_s: float
    """On a CPU of the kind that the weights take: of int8 for int8 and int4, of float32 for the
    others. On a GPU of the activations' type, whatever the weights are.
    """
    bytes_read_per_s: float

    def shares(self, num_multiply_adds: int, num_bytes_read: int, seconds: float) -> Shares:
        """Of what could have been done in that time."""
        return Shares(
            num_multiply_adds / seconds / self.multiply_adds_per_s,
            num_bytes_read / seconds / self.bytes_read_per_s,
        )


@dataclass(frozen=True, kw_only=True)
class MachineUse:
    """What an engine did while it was busy, and which share of the limits that is."""

    busy_s: float
    multiply_adds_per_s: float
    bytes_read_per_s: float
    arithmetic_share: float
    bandwidth_share: float


def measure_limits(resolved: Resolved) -> MachineLimits | None:
    """Measure for a quarter of a second, with nothing else running.

    None where no kernels of our own compute on a CPU, or a GPU has no memory left to measure with.
    """
    if resolved.device != "cpu":
        from penstock.engine.gpu_limits import measured_limits

        found = measured_limits(resolved.device, resolved.dtype)
        return found and MachineLimits(multiply_adds_per_s=found[0] / 2, bytes_read_per_s=found[1])
    try:
        from penstock.kernels.limits import cpu
    except ImportError:
        return None
    integers = resolved.weights in ("int8", "int4")
    ops = cpu.measured_int8_ops() if integers else cpu.measured_flops()
    bandwidth = cpu.measured_bandwidth()
    give_memory_back()
    return MachineLimits(multiply_adds_per_s=ops / 2, bytes_read_per_s=bandwidth)


def machine_use(before: EngineStats, after: EngineStats, limits: MachineLimits) -> MachineUse:
    """The use that an engine made of the machine between two of its states."""
    busy = after.busy_s - before.busy_s
    num_multiplied = after.num_multiply_adds - before.num_multiply_adds
    num_read = after.num_bytes_read - before.num_bytes_read
    shares = limits.shares(num_multiplied, num_read, busy)
    return MachineUse(
        busy_s=busy,
        multiply_adds_per_s=num_multiplied / busy,
        bytes_read_per_s=num_read / busy,
        arithmetic_share=shares.arithmetic,
        bandwidth_share=shares.bandwidth,
    )
