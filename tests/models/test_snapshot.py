"""A snapshot serves what was packed, bit for bit, from where it lies on disk; or it is refused."""

import hashlib
import json
import re
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from penstock.kernels.ops import REFERENCE, Ops
from penstock.kernels.packed import Packing
from penstock.models.config import read_config
from penstock.models.decoder import Decoder
from penstock.models.loading import load_decoder
from penstock.models.manifest import MANIFEST, read_manifest, write_manifest
from penstock.models.safetensors_file import SafetensorsFile, write_safetensors
from penstock.models.snapshot import Snapshot
from penstock.vocabulary.errors import ModelError
from tests.kernels.instruction_sets import ISAS, cpu_ops
from tests.models import checkpoints
from tests.models.snapshots import CPU, copied, packed, restored, write
from tests.paged_steps import logits_of
from tests.tiny_models import make_tiny_checkpoint

FAMILIES = ["llama-tied", "mixtral", "qwen3", "opt-norm-after", "falcon-new-decoder", "phi"]
BACKENDS: dict[str, Ops] = {"reference": REFERENCE} | ({"kernels": cpu_ops()} if ISAS else {})
PROMPTS = [[1, 5, 9, 3, 30], [7, 2]]
PACKED = "packed-00001.safetensors"


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a model with tokenizer files beside it."""
    model_dir = checkpoints.write(tmp_path_factory.mktemp("model"))
    (model_dir / "tokenizer.json").write_text('{"version": "1.0"}')
    (model_dir / "chat_template.jinja").write_text("{{ messages }}")
    (model_dir / "LICENSE").write_text("do as you like")
    return write(model_dir, tmp_path_factory.mktemp("made") / "snapshot")


def logits(decoder: Decoder) -> list[Tensor]:
    return logits_of(decoder, PROMPTS, chunk=3, block_size=16)


def same(left: Decoder, right: Decoder) -> bool:
    pairs = zip(logits(left), logits(right), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_logits_are_those_of_the_checkpoint_bit_for_bit(
    checkpoint: Path, tmp_path: Path, weights: str, backend: str
) -> None:
    ops = BACKENDS[backend]
    directory = write(checkpoint, tmp_path / "snapshot", weights, ops)
    assert same(restored(directory, ops), packed(checkpoint, weights, ops))


def test_a_snapshot_is_enough_to_serve(tiny: Path) -> None:
    names = {path.name for path in tiny.iterdir()}
    copies = {"config.json", "tokenizer.json", "chat_template.jinja", "LICENSE"}
    assert names == copies | {MANIFEST, PACKED}


def test_its_files_are_what_any_reader_of_safetensors_reads(tiny: Path) -> None:
    ours = SafetensorsFile(tiny / PACKED).tensors
    with safe_open(tiny / PACKED, framework="pt") as file:
        for name, stored in ours.items():
            assert torch.equal(file.get_tensor(name), stored.read())


def test_every_tensor_begins_at_a_multiple_of_64_bytes(tiny: Path) -> None:
    decoder = restored(tiny)
    assert decoder.embedding.data_ptr() % 64 == 0
    assert {stored.start % 64 for stored in SafetensorsFile(tiny / PACKED).tensors.values()} == {0}


def test_weights_are_used_where_the_file_is_mapped(tiny: Path) -> None:
    decoder = restored(tiny)
    maps = Path("/proc/self/maps").read_text()
    mapped = [
        range(int(start, 16), int(end, 16))
        for start, end in re.findall(rf"^(\w+)-(\w+) .*{tiny}/{PACKED}$", maps, re.MULTILINE)
    ]
    for tensor in (decoder.embedding, decoder.head.weight, decoder.layers[0].attention.qkv.weight):
        assert any(tensor.data_ptr() in place for place in mapped)


def test_an_embedding_stays_a_view_of_the_mapped_checkpoint(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in checkpoints.tensors().items()}
    checkpoints.write(tmp_path, halves, torch_dtype="bfloat16")
    embedding = checkpoints.load(tmp_path).embedding
    assert embedding.dtype == torch.bfloat16
    maps = Path("/proc/self/maps").read_text()
    places = re.findall(rf"^(\w+)-(\w+) .*{tmp_path}/model.safetensors$", maps, re.MULTILINE)
    assert any(int(start, 16) <= embedding.data_ptr() < int(end, 16) for start, end in places)


def test_large_models_are_written_in_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.models.snapshot._FILE_BYTES", 1000)
    model_dir = checkpoints.write(tmp_path)
    directory = write(model_dir, tmp_path / "snapshot")
    assert len(list(directory.glob("packed-*.safetensors"))) > 3
    assert same(restored(directory), packed(model_dir))


def expect(directory: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        restored(directory)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("packing", "dtype", "words"),
    [
        (Packing("avx512_vnni", 1), "float32", ["avx512_vnni", "any", "penstock snapshot tiny"]),
        (Packing("any", 2), "float32", ["layout 1", "layout 2", "penstock snapshot tiny"]),
        (Packing("any", 1), "bfloat16", ["float32", "bfloat16", "penstock snapshot tiny"]),
    ],
)
def test_another_packing_is_refused_with_both_names_and_the_remedy(
    tiny: Path, packing: Packing, dtype: str, words: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        Snapshot(tiny).check_fits(packing, dtype)
    assert all(word in str(caught.value) for word in words)


def test_a_format_to_come_is_refused_as_such(tiny: Path, tmp_path: Path) -> None:
    directory = copied(tiny, tmp_path / "s")
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["snapshot"] |= {"format": 7, "new": True}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    expect(directory, "format 7", "Make it anew")


def test_a_missing_file_is_named(tiny: Path, tmp_path: Path) -> None:
    directory = copied(tiny, tmp_path / "s")
    (directory / "chat_template.jinja").unlink()
    expect(directory, "lacks chat_template.jinja")


def test_a_truncated_file_is_named_with_both_sizes(tiny: Path, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path / "s") / PACKED
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    expect(path.parent, PACKED, f"{size - 1} bytes", str(size))


def test_an_edited_configuration_is_refused(tiny: Path, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path / "s") / "config.json"
    path.write_text(path.read_text().replace("10000.0", "20000.0"))
    expect(path.parent, "config.json", "differs")


def test_a_flipped_bit_among_the_weights_is_found(tiny: Path, tmp_path: Path) -> None:
    path = copied(tiny, tmp_path / "s") / PACKED
    spoil(path, path.stat().st_size // 2, 1)
    expect(path.parent, PACKED, "differs")


def spoil(path: Path, place: int, flipped: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= flipped
    path.write_bytes(content)


@pytest.fixture(scope="module")
def spoilt(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to be damaged and mended again and again."""
    return copied(tiny, tmp_path_factory.mktemp("spoilt") / "s")


FILES = st.sampled_from([MANIFEST, PACKED, "config.json", "tokenizer.json"])


@settings(max_examples=60, deadline=None)
@given(FILES, st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_whatever_byte_is_flipped_the_answer_is_the_same_or_a_refusal(
    tiny: Path, spoilt: Path, name: str, place: float, flipped: int, verify: bool
) -> None:
    """Without comparing checksums of weights, other numbers may come, but never a crash."""
    path, original = spoilt / name, (tiny / name).read_bytes()
    path.write_bytes(original)
    spoil(path, int(place * len(original)), flipped)
    try:
        decoder = restored(spoilt, verify=verify)
    except ModelError as error:
        assert error.remedy
    else:
        assert same(decoder, restored(tiny)) or not verify
    finally:
        path.write_bytes(original)


@settings(max_examples=30, deadline=None)
@given(FILES, st.floats(0, 1, exclude_max=True), st.booleans())
def test_wherever_a_file_is_cut_off_it_is_refused(
    tiny: Path, spoilt: Path, name: str, place: float, verify: bool
) -> None:
    path, original = spoilt / name, (tiny / name).read_bytes()
    path.write_bytes(original[: int(place * (len(original) - 1))])
    try:
        with pytest.raises(ModelError):
            restored(spoilt, verify=verify)
    finally:
        path.write_bytes(original)


def resealed(directory: Path, old: str, new: str) -> Path:
    """A manifest that lies, with a checksum that is right."""
    manifest = read_manifest(directory)
    text = msgspec.json.encode(manifest).decode()
    assert old in text
    write_manifest(directory, msgspec.json.decode(text.replace(old, new), type=type(manifest)))
    return directory


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"out_features":16', '"out_features":17', "out_features is 17 where 16"),
        ('"in_features":8', '"in_features":9', "in_features is 9 where 8"),
        ('"gated":true', '"gated":false', "gated is False where True"),
        ('"form":"dense"', '"form":"sparse"', "no form 'sparse'"),
        ('"form":"dense"', '"form":3', "form"),
        ('"kind":"table"', '"kind":"norm"', "a norm is no table"),
        ('"layers.1.down"', '"layers.9.down"', "disagree about layers."),
        ('"weight"', '"wait"', "there is no tensor"),
    ],
)
def test_a_manifest_that_lies_about_the_weights_is_refused(
    tiny: Path, tmp_path: Path, old: str, new: str, words: str
) -> None:
    expect(resealed(copied(tiny, tmp_path / "s"), old, new), words)


def test_a_manifest_that_points_outside_its_directory_is_refused(
    tiny: Path, tmp_path: Path
) -> None:
    expect(resealed(copied(tiny, tmp_path / "s"), "LICENSE", "../LICENSE"), "not a file beside it")


@pytest.mark.skipif(not ISAS, reason="no kernels here")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"scheme":"int8"', '"scheme":"int4"', "bytes of panels"),
        ('"scheme":"int8"', '"scheme":"bfloat16"', "bytes of panels"),
        ('"group_size":32', '"group_size":0', "Groups of 0"),
        ('"isa":"', '"isa":"no-', "no-"),
        ('"form":"panels"', '"form":"dense"', "are not panels"),
    ],
)
def test_a_manifest_that_lies_to_kernels_is_refused(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    ops = cpu_ops()
    directory = write(checkpoints.write(tmp_path), tmp_path / "s", "int8", ops)
    with pytest.raises(ModelError, match=re.escape(words)):
        restored(resealed(directory, old, new), ops)


def test_the_pages_of_a_checkpoint_are_given_back_when_it_is_packed(tmp_path: Path) -> None:
    """Of 50 MB of linears in a file, next to nothing is left in memory beside their copies."""
    sizes = {8: 1024, 12: 1024, 4: 512, 32: 32}
    weights = {
        name: torch.zeros([sizes[size] for size in tensor.shape])
        for name, tensor in checkpoints.tensors().items()
    }
    checkpoints.write(tmp_path, weights, hidden_size=1024, intermediate_size=1024)
    path = tmp_path / "model.safetensors"
    decoder = checkpoints.load(tmp_path, "bfloat16")
    assert decoder.layers and path.stat().st_size > 50_000_000
    assert resident(path) < 2_000_000


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    found, counting = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counting = line.endswith(str(path))
        elif counting and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_tensors_that_lie_askew_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} '
    path.write_bytes(len(header).to_bytes(8, "little") + header + torch.ones(2).numpy().tobytes())
    assert SafetensorsFile(path).tensors["a"].start % 4
    assert torch.equal(SafetensorsFile(path).tensors["a"].read(), torch.ones(2))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}, "beyond"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "larger or smaller"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "impossible"),
        ({"dtype": "F32", "shape": [0, 2**60], "data_offsets": [0, 0]}, "impossible"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "beyond"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 8]}, "where a is"),
        ({"dtype": "F32", "shape": [2]}, "where a is"),
        ("F32", "where a is"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "end at"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, entry: object, words: str) -> None:
    path = tmp_path / "x.safetensors"
    header = json.dumps({"a": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match=words):
        SafetensorsFile(path)


def test_what_is_written_is_what_its_checksum_says(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.arange(5), "b": torch.ones(3, 3).bfloat16(), "c": torch.zeros(0)}
    checksum = write_safetensors(path, tensors)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    read = {name: stored.read() for name, stored in SafetensorsFile(path).tensors.items()}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_snapshot_is_no_checkpoint(tiny: Path) -> None:
    with pytest.raises(ModelError, match="is a snapshot"):
        load_decoder(
            tiny,
            read_config(tiny),
            weights="float32",
            dtype=torch.float32,
            device=CPU,
            ops=REFERENCE,
        )
