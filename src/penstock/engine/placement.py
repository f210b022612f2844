"""Where the replicas of a model compute: one device for each, or a share of the processors."""

import socket
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from penstock.engine.host import free_memory
from penstock.vocabulary.errors import SettingsError

T = TypeVar("T")

AUTO = "auto"

DeviceMap = str | int | list[Any] | dict[str, Any]
"""Which GPUs, in the forms that DeepSpeed-MII has: `auto`, a number, a list of numbers (one replica
on all of them), a list of such lists (a replica for each), or that by host. As text it is JSON.
"""

_FORMS = (
    "Give auto, the number of a GPU, a list for each replica as in [[0], [1]], or these by host "
    'as in {"localhost": [[0], [1]]}.'
)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a machine one of several replicas has, where all of them share it."""

    number: int = 0
    of: int = 1
    free_bytes: int | None = None
    """What it may count on of the machine's memory, by a count before any of them started."""

    def part(self, things: Sequence[T]) -> Sequence[T]:
        """Neighbours among the things; no two replicas have the same, and nothing is left over."""
        first, end = (len(things) * number // self.of for number in (self.number, self.number + 1))
        return things[first:end]


WHOLE = Share()
"""What a single engine has."""


def shares(count: int) -> list[Share]:
    """Equal parts of the machine as it is now."""
    if count == 1:
        return [WHOLE]
    free_bytes = free_memory() // count
    return [Share(number=number, of=count, free_bytes=free_bytes) for number in range(count)]


def replica_devices(device: str, replicas: int | None, device_map: DeviceMap) -> list[str]:
    """The device of each replica, as `find_device` takes it: without a number, it chooses one.

    Raises `SettingsError` for a map that cannot be followed, or that says something else than the
    other two.
    """
    gpus = mapped_gpus(device_map)
    if gpus is None:
        count = 1 if replicas is None else replicas
        if count > 1 and device.startswith("cuda:"):
            raise SettingsError(
                f"{device} is one device, and {count} replicas were asked for.",
                remedy="--device cuda takes a GPU for each; --device-map says which.",
            )
        return [device] * count
    if device not in (AUTO, "cuda"):
        raise SettingsError(
            f"device {device!r} and device_map {device_map!r} both say where to compute.",
            remedy="The map has the numbers of GPUs: leave out one of the two.",
        )
    if replicas not in (None, len(gpus)):
        raise SettingsError(
            f"device_map has GPUs for {len(gpus)} replicas, and {replicas} were asked for.",
            remedy="Leave out --replicas: each list of the map is one.",
        )
    return [f"cuda:{gpu}" for gpu in gpus]


def mapped_gpus(device_map: DeviceMap) -> list[int] | None:
    """The GPU of each replica; None for `auto`. Raises `SettingsError` for what is no map, and for
    one that splits a model, names another host or uses a GPU twice.
    """
    value = _read(device_map)
    if value == AUTO:
        return None
    groups = _groups(value, device_map)
    for group in groups:
        if len(group) > 1:
            raise SettingsError(
                f"device_map puts one replica on {len(group)} GPUs, {group}: a model is not split "
                "over devices (tensor parallelism) yet.",
                remedy=f"A list for each makes replicas of them: {[[gpu] for gpu in group]}.",
            )
    gpus = [gpu for group in groups for gpu in group]
    if len(set(gpus)) < len(gpus):
        raise SettingsError(
            f"device_map {device_map!r} uses a GPU twice.",
            remedy="One replica fills a GPU: name each once.",
        )
    return gpus


def _read(device_map: DeviceMap) -> Any:
    if not isinstance(device_map, str) or device_map == AUTO:
        return device_map
    try:
        return msgspec.json.decode(device_map)
    except msgspec.DecodeError:
        raise _no_map(device_map) from None


def _groups(value: Any, device_map: DeviceMap) -> list[list[int]]:
    """The GPUs of each replica."""
    if isinstance(value, dict):
        for host in value:
            _check_host(host)
        value = [group for groups in value.values() for group in _list(groups, device_map)]
    elif _is_gpu(value):
        value = [[value]]
    elif isinstance(value, list) and all(map(_is_gpu, value)):
        value = [value]
    groups = _list(value, device_map)
    if not all(_list(group, device_map) and all(map(_is_gpu, group)) for group in groups):
        raise _no_map(device_map)
    return groups


def _list(value: Any, device_map: DeviceMap) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _no_map(device_map)
    return value


def _is_gpu(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_host(host: Any) -> None:
    if host not in ("localhost", socket.gethostname()):
        raise SettingsError(
            f"device_map names host {host!r}; replicas are on this machine, "
            f"{socket.gethostname()!r}.",
            remedy="Call it localhost. Another machine takes a server of its own.",
        )


def _no_map(device_map: DeviceMap) -> SettingsError:
    return SettingsError(f"{device_map!r} is no device map.", remedy=_FORMS)
