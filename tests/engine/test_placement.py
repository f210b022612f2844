"""Which device each replica gets, and which part of the processors."""

import os
import socket

import msgspec
import pytest
import torch

from penstock.engine import hardware, placement
from penstock.engine.front_settings import FrontSettings
from penstock.engine.hardware import find_device, find_hardware, keep_to, num_threads
from penstock.engine.placement import WHOLE, Share, mapped_gpus, replica_devices, shares
from penstock.vocabulary.errors import SettingsError

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("device_map", "gpus"),
    [
        ("auto", None),
        (0, [0]),
        ("3", [3]),
        ([2], [2]),
        ([[1]], [1]),
        ([[0], [1]], [0, 1]),
        ("[[3], [1]]", [3, 1]),
        ({"localhost": [[0], [2]]}, [0, 2]),
        ({HERE: [[0], [1], [2]]}, [0, 1, 2]),
        ('{"localhost": [[1]]}', [1]),
    ],
)
def test_a_device_map_has_the_forms_of_mii(device_map, gpus):
    assert mapped_gpus(device_map) == gpus


@pytest.mark.parametrize(
    ("device_map", "words"),
    [
        ([0, 1], r"2 GPUs, \[0, 1\].*tensor parallelism.*\[\[0\], \[1\]\]"),
        ([[0, 1], [2, 3]], "tensor parallelism"),
        ({"localhost": [[0, 1]]}, "tensor parallelism"),
        ({"node2": [[0]]}, "names host 'node2'.*server of its own"),
        ('{"localhost": [[0]], "node2": [[0]]}', "node2"),
        ([[0], [0]], "a GPU twice"),
        ({"localhost": [[0]], HERE: [[0]]}, "a GPU twice"),
        ("all", "'all' is no device map.*Give auto"),
        ("[[0]", "no device map"),
        (-1, "no device map"),
        (True, "no device map"),
        (1.5, "no device map"),
        ([], "no device map"),
        ([[]], "no device map"),
        ([[0], 1], "no device map"),
        ([["0"]], "no device map"),
        ({}, "no device map"),
        ({"localhost": [0]}, "no device map"),
        ({"localhost": 0}, "no device map"),
    ],
)
def test_a_map_that_cannot_be_followed_is_refused_with_what_to_do(device_map, words):
    with pytest.raises(SettingsError, match=words):
        FrontSettings(device_map=device_map)


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        (("auto", None, "auto"), ["auto"]),
        (("cuda:3", 1, "auto"), ["cuda:3"]),
        (("cpu", 3, "auto"), ["cpu", "cpu", "cpu"]),
        (("cuda", 2, "auto"), ["cuda", "cuda"]),
        (("auto", None, [[4], [2]]), ["cuda:4", "cuda:2"]),
        (("cuda", 2, [[4], [2]]), ["cuda:4", "cuda:2"]),
    ],
)
def test_every_replica_gets_a_device(asked, devices):
    assert replica_devices(*asked) == devices


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("cuda:1", 2, "auto"), "cuda:1 is one device, and 2 replicas.*--device-map"),
        (("cpu", None, [[0], [1]]), "both say where"),
        (("cuda:0", None, 0), "both say where"),
        (("auto", 3, [[0], [1]]), "for 2 replicas, and 3 were"),
        (("auto", 1, [[0], [1]]), "for 2 replicas, and 1 were"),
    ],
)
def test_settings_that_say_different_things_are_refused(asked, words):
    with pytest.raises(SettingsError, match=words):
        replica_devices(*asked)


def test_there_is_at_least_one_replica():
    with pytest.raises(SettingsError, match="replicas must be above 0"):
        FrontSettings(replicas=0)


@pytest.mark.parametrize("device_map", ["auto", 1, [[0], [1]], {"localhost": [[0]]}])
def test_a_map_survives_the_way_to_a_deployment_s_process(device_map):
    settings = FrontSettings(device_map=device_map)
    assert msgspec.json.decode(msgspec.json.encode(settings), type=FrontSettings) == settings


# -- on a machine --------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """As many as a test says."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_replica_takes_a_gpu_of_its_own(gpus, device):
    gpus(3)
    found = [find_device(device, Share(number=number, of=3)) for number in range(3)]
    assert found == ["cuda:0", "cuda:1", "cuda:2"]
    assert find_device(device) == "cuda:0"
    assert find_device("cuda:2", Share(number=0, of=2)) == "cuda:2"


def test_more_replicas_than_gpus_are_refused_but_processors_are_shared_by_any_number(gpus):
    gpus(2)
    for number in range(3):
        with pytest.raises(SettingsError, match="3 replicas take a GPU each, and torch sees 2"):
            find_device("auto", Share(number=number, of=3))
        assert find_device("cpu", Share(number=number, of=3)) == "cpu"
    gpus(0)
    assert find_device("auto", Share(number=2, of=3)) == "cpu"
    with pytest.raises(SettingsError, match="torch sees 0"):
        find_device("cuda", Share(number=0, of=2))


@pytest.mark.parametrize(("count", "of"), [(4, 2), (7, 3), (2, 2), (1, 3)])
def test_shares_take_everything_and_overlap_nowhere(count, of):
    parts = [list(Share(number=number, of=of).part(range(count))) for number in range(of)]
    assert [each for part in parts for each in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_replicas_compute_on_their_share_of_the_cores_or_on_what_the_user_says(monkeypatch):
    monkeypatch.setattr(hardware, "num_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert num_threads() == num_threads(WHOLE) == 5
    assert [num_threads(Share(number=number, of=2)) for number in range(2)] == [2, 3]
    assert [num_threads(Share(number=number, of=9)) for number in range(9)] == [1] * 9
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert num_threads(Share(number=1, of=2)) == 4


def test_replicas_count_on_the_memory_that_was_free_before_any_of_them_took_some(monkeypatch):
    monkeypatch.setattr(placement, "free_memory", lambda: 1000)
    monkeypatch.setattr(hardware, "free_memory", lambda: 10)
    for share, free_bytes in (*zip(shares(4), [250] * 4, strict=True), (WHOLE, 10)):
        found = find_hardware("cpu", has_kernels=True, has_fp8=False, share=share)
        assert found.free_bytes == free_bytes
    assert shares(1) == [WHOLE]


def test_a_replica_stays_on_neighbouring_processors(monkeypatch):
    """Two nodes, whose processors are numbered in turns, and each core has two."""
    place = {cpu: (cpu % 2, 0, cpu // 2 % 2, cpu) for cpu in range(8)}
    kept: list[set[int]] = []
    monkeypatch.setattr(hardware, "_place_of", place.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(place))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: kept.append(set(cpus)))
    for number in range(2):
        keep_to(Share(number=number, of=2))
    assert kept == [{0, 2, 4, 6}, {1, 3, 5, 7}]
    for number in range(4):
        keep_to(Share(number=number, of=4))
    assert kept[2:] == [{0, 4}, {2, 6}, {1, 5}, {3, 7}]
    keep_to(Share(number=1, of=9))
    assert len(kept) == 6


def test_the_place_of_every_processor_of_this_machine_is_known():
    places = [hardware._place_of(processor) for processor in os.sched_getaffinity(0)]
    assert len(set(places)) == len(places) and {len(place) for place in places} == {4}
