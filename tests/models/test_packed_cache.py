"""What is packed once is found again, whoever else writes, whatever the disk does."""

import errno
import logging
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import pytest
import torch

from penstock.kernels.ops import REFERENCE
from penstock.models.config import read_config
from penstock.models.loading import packed_slots
from penstock.models.packed_cache import PackedCache, cache_key, cache_root
from penstock.models.snapshot import Snapshot, write_snapshot
from penstock.models.weights import Weights
from tests.models import checkpoints
from tests.models.snapshots import CPU, origin

KEY = "0" * 32
MIB = 2**20


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return checkpoints.write(tmp_path / "model")


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    return PackedCache(tmp_path / "cache", limit_bytes=64 * MIB)


def fill(cache: PackedCache, model_dir: Path, key: str = KEY, source: str = "tiny") -> None:
    slots = packed_slots(
        model_dir,
        read_config(model_dir),
        weights="float32",
        dtype=torch.float32,
        device=CPU,
        ops=REFERENCE,
    )
    with cache.draft(key, MIB) as directory:
        write_snapshot(directory, slots, origin(source=source))
    cache.wait()


def find(cache: PackedCache, model_dir: Path, key: str = KEY) -> Weights | None:
    def restore(snapshot: Snapshot) -> Weights:
        snapshot.verify()
        return snapshot.weights(read_config(model_dir).spec, REFERENCE, CPU)

    return cache.find(key, restore)


def names(cache: PackedCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir())


def test_what_was_written_is_found(cache: PackedCache, model_dir: Path) -> None:
    assert find(cache, model_dir) is None
    fill(cache, model_dir)
    found = find(cache, model_dir)
    expected = checkpoints.load(model_dir)
    assert found is not None
    assert torch.equal(found.tables["embedding"], expected.embedding)
    assert torch.equal(found.linears["head"].weight, expected.head.weight)


def test_a_damaged_entry_is_dropped_with_a_word(
    cache: PackedCache, model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(cache, model_dir)
    path = cache.root / KEY / "packed-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert find(cache, model_dir) is None
    assert "packed anew" in caplog.text and "packed-00001.safetensors" in caplog.text
    assert names(cache) == []


def test_a_damaged_entry_that_nobody_may_drop_is_passed_over(
    cache: PackedCache, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, model_dir)
    (cache.root / KEY / "packed-00001.safetensors").unlink()

    def refuse(**_: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert find(cache, model_dir) is None
    assert names(cache) == [KEY]


def test_an_entry_without_its_files_is_dropped(cache: PackedCache, model_dir: Path) -> None:
    fill(cache, model_dir)
    (cache.root / KEY / "packed-00001.safetensors").unlink()
    assert find(cache, model_dir) is None
    assert names(cache) == []


def test_what_fails_while_it_is_written_leaves_nothing_behind(cache: PackedCache) -> None:
    with pytest.raises(ValueError, match="midway"), cache.draft(KEY, MIB) as directory:
        (directory / "x").write_bytes(b"x")
        raise ValueError("midway")
    assert names(cache) == []


def test_a_dead_writer_s_leavings_are_swept_and_a_living_one_s_are_not(
    cache: PackedCache, model_dir: Path
) -> None:
    with cache.draft("1" * 32, MIB) as living:
        dead = cache.root / ".dead"
        dead.mkdir()
        fill(cache, model_dir)
        assert not dead.exists() and living.exists()
        cache.clear()
        assert living.exists()
        write_snapshot(living, [], origin())
    cache.wait()
    assert names(cache) == ["1" * 32]


def write_and_read(root: Path, model_dir: Path, rounds: int) -> None:
    cache = PackedCache(root, limit_bytes=64 * MIB)
    for number in range(rounds):
        key = f"{number % 3:032}"
        if find(cache, model_dir, key) is None:
            fill(cache, model_dir, key)
        if number % 4 == 3:
            cache.clear()


def test_many_processes_may_write_read_and_clear_at_once(
    cache: PackedCache, model_dir: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=write_and_read, args=(cache.root, model_dir, 8)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    fill(cache, model_dir)
    assert find(cache, model_dir) is not None
    assert not [name for name in names(cache) if name.startswith(".")]


def test_of_two_writers_of_one_entry_the_first_wins_and_both_go_on(
    cache: PackedCache, model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with cache.draft(KEY, MIB) as directory:
        fill(cache, model_dir)
        first = (cache.root / KEY).stat().st_ino
        write_snapshot(directory, [], origin())
    cache.wait()
    assert (cache.root / KEY).stat().st_ino == first
    assert names(cache) == [KEY] and not caplog.text


def test_what_was_used_least_recently_makes_room(cache: PackedCache, model_dir: Path) -> None:
    for number in range(3):
        fill(cache, model_dir, f"{number:032}", source=f"model {number}")
        os.utime(cache.root / f"{number:032}", (number, number))
    assert find(cache, model_dir, f"{0:032}") is not None  # now it is the youngest
    [size, *_] = {entry.nbytes for entry in cache.entries()}
    small = PackedCache(cache.root, limit_bytes=int(2.5 * size))
    with small.draft(KEY.replace("0", "9"), 1) as directory:
        write_snapshot(directory, [], origin())
        (directory / "packed-00001.safetensors").write_bytes(b"")
    small.wait()
    assert names(cache) == [f"{0:032}", f"{2:032}", "9" * 32]


def test_an_earlier_state_of_a_model_goes_after_a_day(cache: PackedCache, model_dir: Path) -> None:
    fill(cache, model_dir, "1" * 32)
    fill(cache, model_dir, "2" * 32, source="another model")
    fill(cache, model_dir, "3" * 32)
    two_days_ago = time.time() - 2 * 24 * 3600
    for key in ("1" * 32, "2" * 32):
        os.utime(cache.root / key, (two_days_ago, two_days_ago))
    fill(cache, model_dir, "4" * 32)
    assert names(cache) == ["2" * 32, "3" * 32, "4" * 32]


def test_what_could_never_fit_is_not_begun(cache: PackedCache, model_dir: Path) -> None:
    with pytest.raises(OSError, match="more than the cache may take"), cache.draft(KEY, 2**50):
        pytest.fail("begun")
    endless = PackedCache(cache.root, limit_bytes=2**60)
    with pytest.raises(OSError, match="no room"), endless.draft(KEY, 2**55):
        pytest.fail("begun")
    assert names(cache) == []


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(
    cache: PackedCache, model_dir: Path
) -> None:
    """A limit on file sizes stands for the end of the disk: a write fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError):
            fill(cache, model_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(cache) == []


def test_an_entry_that_cannot_be_synced_is_not_published(
    cache: PackedCache,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    fill(cache, model_dir)
    assert names(cache) == [] and "No space left" in caplog.text


def test_the_name_of_an_entry_changes_with_all_that_decides_what_is_in_it(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = [cache_key(model_dir, origin()), cache_key(model_dir, origin("int8"))]
    assert cache_key(model_dir, origin()) == keys[0]
    keys += [cache_key(model_dir, origin(instruction_set="avx9"))]
    keys += [cache_key(model_dir, origin(packing_version=2))]
    os.utime(model_dir / "model.safetensors", (1, 1))
    keys += [cache_key(model_dir, origin())]
    checkpoints.write_config(model_dir, rope_theta=5.0)
    keys += [cache_key(model_dir, origin())]
    monkeypatch.setattr("penstock.models.packed_cache._code", lambda: "other code")
    keys += [cache_key(model_dir, origin())]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("relative", ["", "not/absolute"])
def test_the_cache_is_where_the_standard_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, relative: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "penstock" / "packed"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    assert cache_root() == tmp_path / ".cache" / "penstock" / "packed"
