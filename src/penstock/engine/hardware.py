"""What this machine has: cores this process may use, memory that is free, a GPU or none."""

import os
import time
from pathlib import Path

import torch

from penstock.engine.settings import Hardware
from penstock.vocabulary.errors import SettingsError


def find_device(device: str) -> str:
    """The device asked for, auto, cpu, cuda or cuda:N, as cpu or cuda:N. Raises `SettingsError` if
    it is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if not device.startswith("cuda"):
        raise SettingsError(
            f"Unknown device {device!r}.", remedy="Choose auto, cpu, cuda or cuda:N."
        )
    index = device.removeprefix("cuda").removeprefix(":") or "0"
    if not index.isdecimal() or int(index) >= torch.cuda.device_count():
        raise SettingsError(
            f"There is no device {device!r}: torch sees {torch.cuda.device_count()} GPUs.",
            remedy="Use --device cpu, or install torch with CUDA and check nvidia-smi.",
        )
    return f"cuda:{index}"


def find_hardware(device: str, *, has_kernels: bool, has_fp8: bool) -> Hardware:
    """What there is to compute with on a device that `find_device` found."""
    if device == "cpu":
        return Hardware(
            device=device,
            device_name=cpu_name(),
            free_bytes=free_memory(),
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


def num_cores() -> int:
    """Processors this process may run on, the control group's quota included."""
    allowed = len(os.sched_getaffinity(0))
    quota = _first_words("/sys/fs/cgroup/cpu.max")
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(allowed, -(-int(quota[0]) // int(quota[1]))))
    return allowed


def num_threads() -> int:
    """Threads to compute on: OMP_NUM_THREADS, since whoever sets it knows what else runs here, or
    else one per core.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else num_cores()


def free_memory() -> int:
    """Bytes that can be allocated without swapping, the control group's limit included."""
    free = _meminfo("MemAvailable")
    limit, used = (
        _first_words("/sys/fs/cgroup/memory.max"),
        _first_words("/sys/fs/cgroup/memory.current"),
    )
    if limit and used and limit[0].isdecimal():
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def process_age_s() -> float:
    """Seconds since this process was started, long before its first line of Python."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_s = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def cpu_name() -> str:
    """The processor as the kernel names it."""
    return _cpuinfo("model name") or "unknown processor"


def cpu_flags() -> frozenset[str]:
    """Instruction sets as the kernel names them."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _meminfo(key: str) -> int:
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise SettingsError(f"/proc/meminfo does not tell {key}.", remedy="Give --kv-cache-gib.")


def _first_words(path: str) -> list[str]:
    return next(iter(_lines(path)), "").split()


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
