"""This machine's processors and memory, as its files tell. Imports no torch."""

import ctypes
import os
import time
from pathlib import Path

from penstock.vocabulary.errors import SettingsError


def num_cores() -> int:
    """Processors this process may run on, the control group's quota included."""
    allowed = len(os.sched_getaffinity(0))
    quota = first_words("/sys/fs/cgroup/cpu.max")
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(allowed, -(-int(quota[0]) // int(quota[1]))))
    return allowed


def free_memory() -> int:
    """Bytes that can be allocated without swapping, the control group's limit included."""
    free = _meminfo("MemAvailable")
    limit, used = (
        first_words("/sys/fs/cgroup/memory.max"),
        first_words("/sys/fs/cgroup/memory.current"),
    )
    if limit and used and limit[0].isdecimal():
        free = min(free, int(limit[0]) - int(used[0]))
    return free


def give_memory_back() -> None:
    """Return what this process has freed to the system, where the C library can: what is needed
    once, at a start, would otherwise stay with it for good.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


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


def first_words(path: str | Path) -> list[str]:
    """Of a file's first line; none if there is no such file."""
    return next(iter(_lines(path)), "").split()


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


def _lines(path: str | Path) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
