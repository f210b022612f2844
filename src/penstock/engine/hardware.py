"""What there is to compute with: a GPU, or a share of the processors."""

import os
from pathlib import Path

import torch

from penstock.engine.host import cpu_name, first_words, free_memory, num_cores
from penstock.engine.placement import AUTO, WHOLE, Share
from penstock.engine.settings import Hardware
from penstock.vocabulary.errors import SettingsError


def find_device(device: str, share: Share = WHOLE) -> str:
    """The device asked for, auto, cpu, cuda or cuda:N, as cpu or cuda:N. Without a number, each
    replica has a GPU of its own. Raises `SettingsError` if it is not there.
    """
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if not device.startswith("cuda"):
        raise SettingsError(
            f"Unknown device {device!r}.", remedy="Choose auto, cpu, cuda or cuda:N."
        )
    num_gpus = torch.cuda.device_count()
    if device == "cuda" and 0 < num_gpus < share.of:
        raise SettingsError(
            f"{share.of} replicas take a GPU each, and torch sees {num_gpus}.",
            remedy="Ask for fewer; on --device cpu any number share the processors.",
        )
    index = device.removeprefix("cuda").removeprefix(":") or str(share.number)
    if not index.isdecimal() or int(index) >= num_gpus:
        raise SettingsError(
            f"There is no device {device!r}: torch sees {num_gpus} GPUs.",
            remedy="Use --device cpu, or install torch with CUDA and check nvidia-smi.",
        )
    return f"cuda:{index}"


def find_hardware(
    device: str, *, has_kernels: bool, has_fp8: bool, share: Share = WHOLE
) -> Hardware:
    """What there is to compute with on a device that `find_device` found."""
    if device == "cpu":
        return Hardware(
            device=device,
            device_name=cpu_name(),
            free_bytes=free_memory() if share.free_bytes is None else share.free_bytes,
            has_kernels=has_kernels,
        )
    free, _ = torch.cuda.mem_get_info(device)
    return Hardware(
        device=device,
        device_name=torch.cuda.get_device_name(device),
        free_bytes=free,
        has_kernels=has_kernels,
        has_fp8=has_fp8,
    )


def num_threads(share: Share = WHOLE) -> int:
    """Threads to compute on: OMP_NUM_THREADS, since whoever sets it knows what else runs here, or
    else one per core of the share.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked) if asked.isdecimal() else len(share.part(range(num_cores()))))


def keep_to(share: Share) -> None:
    """Have the threads that this one starts from now on stay on their share of the processors.

    Processors of one memory node, and threads of one core, go to the same replica: what it writes
    is then near to it. With fewer processors than replicas, each goes everywhere.
    """
    processors = sorted(os.sched_getaffinity(0), key=_place_of)
    if len(processors) >= share.of:
        os.sched_setaffinity(0, share.part(processors))


def _place_of(processor: int) -> tuple[int, ...]:
    """Processors with like places are near to one another: memory node, package, core."""
    folder = Path(f"/sys/devices/system/cpu/cpu{processor}")
    nodes = [int(node.name.removeprefix("node")) for node in folder.glob("node[0-9]*")]
    topology = [
        int(next(iter(first_words(f"{folder}/topology/{name}")), 0))
        for name in ("physical_package_id", "core_id")
    ]
    return (min(nodes, default=0), *topology, processor)
