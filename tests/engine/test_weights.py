"""Where an engine's weights come from: the checkpoint, a snapshot, or what was packed before."""

import resource
import shutil
import threading
from pathlib import Path

import pytest

from penstock import LLM, SamplingParams
from penstock.engine.loading import Prepared, prepare
from penstock.engine.settings import EngineSettings
from penstock.models.location import embedded_model_dir
from penstock.models.packed_cache import PackedCache, cache_root
from penstock.models.snapshot import Snapshot
from penstock.vocabulary.errors import ModelError, SettingsError

PROMPT = "def add(a, b):"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_root()


@pytest.fixture(scope="module")
def expected() -> str:
    return answer(packed_cache=False)


def answer(**settings: object) -> str:
    """What the embedded model says, or a snapshot of it."""
    llm = LLM(kv_cache_gib=0.05, **settings)
    [result] = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=12), use_tqdm=False)
    return result.outputs[0].text


def prepared(model_dir: Path | None = None, **settings: object) -> Prepared:
    asked = EngineSettings(kv_cache_gib=0.05, **settings)
    return prepare(asked, model_dir or embedded_model_dir(), "tiny")


def entries(root: Path) -> list[Path]:
    """What the cache holds once everything that is being written has its name."""
    for thread in threading.enumerate():
        if thread.name == "cache":
            thread.join()
    return sorted(root.glob("[!.]*"))


def test_a_second_start_finds_what_the_first_has_packed(
    root: Path, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(packed_cache=True) == expected
    [entry] = entries(root)
    monkeypatch.delattr("penstock.engine.weights.packed_slots")  # nothing is packed again
    assert answer(packed_cache=True) == expected
    assert entries(root) == [entry]


def test_what_is_small_is_not_cached_unless_asked_for(root: Path) -> None:
    answer()
    assert not root.exists()


def test_a_damaged_entry_is_packed_anew_and_never_served(
    root: Path, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer(packed_cache=True)
    [entry] = entries(root)
    path = entry / "packed-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert answer(packed_cache=True) == expected
    assert "packed anew" in caplog.text
    assert entries(root) == [entry] and path.read_bytes() != bytes(content)


def test_a_full_disk_costs_the_cache_and_nothing_else(
    root: Path, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert answer(packed_cache=True) == expected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "not cached" in caplog.text and "--no-packed-cache" in caplog.text
    assert entries(root) == []


def test_a_cache_that_cannot_be_made_costs_nothing_either(
    root: Path, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    root.parent.parent.mkdir()
    root.parent.write_text("a file where a directory should be")
    assert answer(packed_cache=True) == expected
    assert "not cached" in caplog.text


def test_a_model_larger_than_the_cache_may_grow_is_not_cached(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer(packed_cache=True, packed_cache_gib=0.001)
    assert "more than the cache may take" in caplog.text and entries(root) == []


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "parent" / "snapshot"
    made = prepared(weights="int8").weights.write(out, "tiny", None)
    assert made.directory == out and made.origin.weights == "int8"
    assert [path.name for path in out.parent.iterdir()] == ["snapshot"]
    return out


def test_a_snapshot_answers_as_the_model_does_and_is_not_cached(root: Path, snapshot: Path) -> None:
    assert answer(model=str(snapshot), packed_cache=True) == answer(weights="int8")
    assert not root.exists()


def test_a_snapshot_decides_how_weights_are_kept(snapshot: Path) -> None:
    found = prepared(snapshot)
    assert found.resolved.weights == "int8" and not found.resolved.packed_cache
    assert prepared(snapshot, weights="int8").resolved.weights == "int8"
    with pytest.raises(SettingsError, match="holds int8 weights, not int4"):
        prepared(snapshot, weights="int4")


def test_a_snapshot_tells_how_large_the_model_is(snapshot: Path) -> None:
    original = prepared(weights="int8").weights
    assert prepared(snapshot).weights.num_parameters == original.num_parameters


def test_the_same_weights_in_another_form_do_not_count(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    shutil.copytree(embedded_model_dir(), model_dir)
    original = prepared(model_dir).weights
    (model_dir / "consolidated.safetensors").write_bytes(bytes(2**24))
    assert prepared(model_dir).weights.num_parameters == original.num_parameters


@pytest.mark.parametrize("verify", [True, False])
def test_checksums_are_compared_unless_told_otherwise(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch, *, verify: bool
) -> None:
    compared: list[Path] = []
    original = Snapshot.verify
    monkeypatch.setattr(
        Snapshot,
        "verify",
        lambda self, on_bytes: compared.append(self.directory) or original(self, on_bytes),
    )
    answer(model=str(snapshot), verify=verify)
    assert compared == ([snapshot] if verify else [])


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_progress_is_told_while_packing_and_while_comparing(
    snapshot: Path, *, from_snapshot: bool
) -> None:
    heard: list[tuple[int, int]] = []
    found = prepared(snapshot if from_snapshot else None)
    found.weights.load(lambda done, total: heard.append((done, total)))
    assert heard[-1][0] == heard[-1][1] > 1_000_000


def test_a_snapshot_is_made_of_a_checkpoint_in_a_place_of_its_own(
    snapshot: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="is a snapshot already"):
        prepared(snapshot).weights.write(tmp_path / "again", "tiny", None)
    with pytest.raises(SettingsError, match="exists"):
        prepared().weights.write(tmp_path, "tiny", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        prepared().weights.write(tmp_path / "file" / "snapshot", "tiny", None)


def test_a_snapshot_that_cannot_be_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(SettingsError, match="cannot be written"):
            prepared().weights.write(tmp_path / "snapshot", "tiny", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lists_what_it_holds(root: Path) -> None:
    answer(packed_cache=True, weights="int4")
    [entry] = entries(root)
    [listed] = PackedCache(root, limit_bytes=0).entries()
    assert listed.key == entry.name and listed.origin.weights == "int4"
    assert listed.origin.source == str(embedded_model_dir())
