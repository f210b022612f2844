"""`penstock quantize`: what it writes is the same model, rounded once, in a format others read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock.kernels.ops import REFERENCE
from penstock.kernels.quantization import Quantized, dequantize, quantize_groups, quantize_rows
from penstock.models.checkpoint import Checkpoint
from penstock.models.compressed_tensors import CompressedCheckpoint, Compression, packed
from penstock.models.config import read_config
from penstock.models.folding import smoothing_factors
from penstock.models.quantizing import quantize_model
from penstock.models.writing import CheckpointWriter
from penstock.vocabulary.errors import ModelError
from tests.models.checkpoints import write
from tests.models.outliers import with_outliers
from tests.models.test_smoothing import distance, logits
from tests.tiny_models import TINY_FAMILIES, VOCAB_SIZE, make_tiny_checkpoint

TEXTS = torch.randint(VOCAB_SIZE, (3, 40), generator=torch.Generator().manual_seed(9)).tolist()
TEXTS[1] = TEXTS[1][:7]


def quantized(
    model_dir: Path, directory: Path, weights: Any = "int8", smoothing: float = 0.5
) -> Path:
    quantize_model(
        model_dir,
        directory,
        weights=weights,
        texts=TEXTS,
        smoothing=smoothing,
        device=torch.device("cpu"),
    )
    return directory


@pytest.mark.parametrize("name", TINY_FAMILIES)
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_quantized_model_is_near_the_exact_one_even_with_outliers(
    name: str, weights: str, tmp_path: Path
) -> None:
    plain = make_tiny_checkpoint(name, tmp_path / "plain")
    spoilt = with_outliers(plain, tmp_path / "spoilt")
    expected = logits(plain, "float32")
    usual = distance(logits(plain, weights), expected)
    for number, model_dir in enumerate((plain, spoilt)):
        found = logits(quantized(model_dir, tmp_path / str(number), weights), weights)
        assert distance(found, expected) < 1.5 * usual


@pytest.mark.parametrize("name", TINY_FAMILIES)
def test_moving_outliers_changes_no_bit_of_the_exact_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written as floats, what `quantize` makes of a model is that model."""
    spoilt = with_outliers(make_tiny_checkpoint(name, tmp_path / "plain"), tmp_path / "spoilt")
    monkeypatch.setattr("penstock.models.quantizing._becomes_integers", lambda slot: False)
    folded = quantized(spoilt, tmp_path / "folded")
    config = json.loads((folded / "config.json").read_text())
    del config["quantization_config"]
    (folded / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(folded, "float32"), logits(spoilt, "float32"))
    before, after = (load_file(each / "model.safetensors") for each in (spoilt, folded))
    moved = [key for key in after if not torch.equal(after[key], before[key])]
    assert {"weight"} <= {key.rpartition(".")[2] for key in moved}


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("name", ["llama", "falcon-new-decoder", "mixtral", "opt"])
def test_what_is_written_is_read_back_bit_for_bit(
    name: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without smoothing, a quantized model computes what the model rounded at loading does."""
    plain = make_tiny_checkpoint(name, tmp_path / "plain")
    written = quantized(plain, tmp_path / "written", weights, smoothing=0.0)
    monkeypatch.setattr("penstock.models.loading.smoothed", lambda group, parts: parts)
    assert torch.equal(logits(written, weights), logits(plain, weights))


def test_integers_reach_the_kernels_as_they_are(tmp_path: Path) -> None:
    """Four linears in each of two layers; the head is of floats."""
    written = quantized(make_tiny_checkpoint("llama", tmp_path / "plain"), tmp_path / "written")
    packed_from: list[type] = []

    def pack_linear(weight: Any, bias: Any, scheme: str, *, gated: bool = False) -> Any:
        packed_from.append(type(weight))
        return REFERENCE.pack_linear(weight, bias, scheme, gated=gated)

    logits(written, "int8", replace(REFERENCE, pack_linear=pack_linear))
    assert packed_from == [Quantized] * 8 + [Tensor]


def test_integers_can_be_turned_back_into_floats(tmp_path: Path) -> None:
    plain = make_tiny_checkpoint("qwen2", tmp_path / "plain")
    written = quantized(plain, tmp_path / "written", smoothing=0.0)
    expected = logits(plain, "float32")
    assert distance(logits(written, "float32"), expected) < distance(
        logits(plain, "int8"), expected
    )


def test_a_float16_model_stays_one(tmp_path: Path) -> None:
    plain = make_tiny_checkpoint("opt", tmp_path / "plain")
    halves = {name: part.half() for name, part in load_file(plain / "model.safetensors").items()}
    save_file(halves, plain / "model.safetensors")
    written = quantized(plain, tmp_path / "written")
    floats = {
        tensor.dtype
        for name, tensor in load_file(written / "model.safetensors").items()
        if "scale" not in name and tensor.is_floating_point()
    }
    assert floats == {torch.float16}


def test_the_rest_of_the_directory_comes_along(tmp_path: Path) -> None:
    plain = make_tiny_checkpoint("llama", tmp_path / "plain")
    (plain / "tokenizer.json").write_text("{}")
    (plain / "chat_template.jinja").write_text("hello")
    (plain / "LICENSE").write_text("free")
    (plain / "pytorch_model.bin").write_bytes(b"never")
    written = quantized(plain, tmp_path / "written")
    names = {path.name for path in written.iterdir()}
    assert {"tokenizer.json", "chat_template.jinja", "LICENSE", "generation_config.json"} < names
    assert "pytorch_model.bin" not in names


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    plain = make_tiny_checkpoint("llama", tmp_path / "plain")
    with pytest.raises(ModelError, match="not empty"):
        quantized(plain, plain)


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    written = quantized(make_tiny_checkpoint("llama", tmp_path / "plain"), tmp_path / "written")
    with pytest.raises(ModelError, match="already"):
        quantized(written, tmp_path / "again")


def test_integers_of_4_bits_are_packed_as_the_format_has_it() -> None:
    """Eight in an int32, the first in the lowest bits, 8 added to each."""
    weight = Quantized(
        torch.tensor([[-8, -7, 0, 1, 2, 3, 6, 7, -1]], dtype=torch.int8), torch.ones(1, 1), 32
    )
    parts = packed("m", weight)
    assert parts["m.weight_packed"].dtype == torch.int32
    words = [word & 0xFFFFFFFF for word in parts["m.weight_packed"].flatten().tolist()]
    assert words == [0xFEBA9810, 7]
    assert parts["m.weight_shape"].tolist() == [1, 9]
    assert parts["m.weight_scale"].dtype == torch.bfloat16


@pytest.mark.parametrize("width", [64, 33, 9, 8])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_matrix_of_any_width_survives_the_file(width: int, weights: Any, tmp_path: Path) -> None:
    matrix = torch.randn(5, width, generator=torch.Generator().manual_seed(width))
    rounded = quantize_rows(matrix) if weights == "int8" else quantize_groups(matrix)
    save_file(
        {name: each.contiguous() for name, each in packed("m", rounded).items()},
        tmp_path / "model.safetensors",
    )
    with CompressedCheckpoint(tmp_path, Compression(weights, rounded.group_size)) as checkpoint:
        assert checkpoint.tensors["m.weight"].shape == (5, width)
        read = checkpoint.read("m.weight")
    assert isinstance(read, Quantized)
    assert torch.equal(read.values, rounded.values)
    assert torch.equal(read.scale, rounded.scale)
    assert read.group_size == rounded.group_size


@pytest.mark.parametrize("group_size", [64, 128, None])
def test_larger_groups_are_several_of_ours_with_one_scale(
    group_size: int | None, tmp_path: Path
) -> None:
    matrix = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    theirs = quantize_groups(matrix, group_size or 200)
    save_file(
        {name: each.contiguous() for name, each in packed("m", theirs).items()},
        tmp_path / "model.safetensors",
    )
    with CompressedCheckpoint(tmp_path, Compression("int4", group_size)) as checkpoint:
        read = checkpoint.read("m.weight")
    assert isinstance(read, Quantized) and read.group_size == 32
    assert torch.equal(dequantize(read), dequantize(theirs))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda parts: parts.pop("m.weight_packed"), "integers"),
        (lambda parts: parts.pop("m.weight_shape"), "weight_shape"),
        (lambda parts: parts.update({"m.weight_shape": torch.tensor([5, 65])}), "needs"),
        (lambda parts: parts.update({"m.weight_shape": torch.tensor([5])}), "needs"),
        (lambda parts: parts.update({"m.weight_scale": torch.ones(5, 1)}), "expected"),
        (lambda parts: parts.update({"m.weight_packed": torch.ones(5, 8)}), "needs"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    spoil: Any, word: str, tmp_path: Path
) -> None:
    parts = packed("m", quantize_groups(torch.randn(5, 64)))
    spoil(parts)
    save_file(parts, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=word):
        CompressedCheckpoint(tmp_path, Compression("int4", 32))


def described(**changes: Any) -> dict[str, Any]:
    group = {
        "targets": ["Linear"],
        "weights": {
            "num_bits": 4,
            "type": "int",
            "symmetric": True,
            "strategy": "group",
            "group_size": 128,
            "dynamic": False,
            "actorder": None,
            "observer": "minmax",
        },
        "input_activations": None,
    }
    group["weights"] |= changes.pop("weights", {})  # type: ignore[operator]
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group | changes.pop("group", {})},
        "sparsity_config": {},
        "kv_cache_scheme": None,
        **changes,
    }


def test_checkpoints_that_others_made_are_understood(tmp_path: Path) -> None:
    write(tmp_path, quantization_config=described())
    assert read_config(tmp_path).compression == Compression("int4", 128)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"quant_method": "gptq"}, "gptq"),
        ({"format": "float-quantized"}, "float-quantized"),
        ({"format": "marlin-24"}, "marlin-24"),
        ({"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        ({"config_groups": {"a": {}, "b": {}}}, "config_groups"),
        ({"config_groups": None}, "config_groups"),
        ({"weights": {"symmetric": False}}, "symmetric"),
        ({"weights": {"type": "float"}}, "weights.type"),
        ({"weights": {"num_bits": 3}}, "3 bits"),
        ({"weights": {"actorder": "group"}}, "actorder"),
        ({"weights": {"group_size": 16}}, "group_size"),
        ({"weights": {"group_size": "many"}}, "group_size"),
        ({"group": {"input_activations": {"num_bits": 8, "dynamic": False}}}, "dynamic"),
    ],
)
def test_other_variants_of_the_format_are_refused_by_name(
    changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    write(tmp_path, quantization_config=described(**changes))
    with pytest.raises(ModelError, match=word):
        read_config(tmp_path)


def test_a_large_model_is_written_in_several_files(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, shard_bytes=1000)
    parts = {f"t{number}": torch.full((100,), float(number)) for number in range(6)}
    for name, tensor in parts.items():
        writer.add(name, tensor)
    writer.close()
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    with Checkpoint(tmp_path) as checkpoint:
        assert sorted(checkpoint.tensors) == sorted(parts)
        for name, tensor in parts.items():
            assert torch.equal(checkpoint.read(name), tensor)  # type: ignore[arg-type]


def test_hard_inputs_are_eased_and_their_columns_pay_for_it() -> None:
    met = torch.tensor([1.0, 64.0, 1.0, 0.0, 1.0])
    need = torch.tensor([1.0, 1.0, 16.0, 1.0, 0.0])
    assert smoothing_factors(met, need, 0.5).tolist() == [1, 8, 0.25, 1, 1]
    assert smoothing_factors(met, need, 1.0).tolist() == [1, 64, 1, 1, 1]
    assert smoothing_factors(torch.zeros(2), torch.ones(2), 0.5).tolist() == [1, 1]
