"""What is read from a checkpoint, and what is said when it cannot be."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penstock.models.checkpoint import Checkpoint
from penstock.vocabulary.errors import ModelError
from tests.models.checkpoints import load, tensors, write, write_config, write_index, write_shards
from tests.paged_steps import logits_of

PROMPT = [[1, 5, 9, 3, 30]]


def logits(directory: Path) -> Tensor:
    return logits_of(load(directory), PROMPT, chunk=2)[0]


def without(*names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors().items() if name not in names}


def test_shards_give_the_model_that_one_file_gives(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert torch.equal(logits(write(tmp_path / "one")), logits(write_shards(tmp_path / "two")))


def test_a_bare_model_s_names_lack_their_first_part(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "bare").mkdir()
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors().items()}
    expected = logits(write(tmp_path / "whole"))
    assert torch.equal(logits(write(tmp_path / "bare", bare)), expected)


def test_a_tied_head_is_the_embedding_even_where_the_checkpoint_has_another(tmp_path: Path) -> None:
    write(tmp_path, tie_word_embeddings=True)
    decoder = load(tmp_path)
    hidden = torch.randn(3, 8)
    torch.testing.assert_close(decoder.logits(hidden), hidden @ decoder.embedding.T)


def test_a_tied_checkpoint_may_lack_a_head(tmp_path: Path) -> None:
    decoder = load(write(tmp_path, without("lm_head.weight"), tie_word_embeddings=True))
    assert decoder.logits(torch.randn(1, 8)).shape == (1, len(decoder.embedding))


def test_linears_keep_their_weights_in_the_type_that_is_asked_for(tmp_path: Path) -> None:
    decoder = load(write(tmp_path), "bfloat16")
    assert decoder.head.weight.dtype == torch.bfloat16
    assert decoder.logits(torch.randn(2, 8)).dtype == torch.float32


def test_progress_counts_the_bytes_of_the_checkpoint(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    load(write(tmp_path), on_progress=lambda done, total: heard.append((done, total)))
    total = sum(tensor.numel() * 4 for tensor in tensors().values())
    assert heard[-1] == (total, total)
    assert [done for done, _ in heard] == sorted({done for done, _ in heard})


def test_only_tensors_that_are_needed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = Checkpoint.read
    monkeypatch.setattr(
        Checkpoint, "read", lambda self, name: read.append(name) or original(self, name)
    )
    old_buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    load(write(tmp_path, tensors() | old_buffers, tie_word_embeddings=True))
    assert sorted(read) == sorted(without("lm_head.weight"))


def expect(directory: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(directory)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    expect(write(tmp_path, without(name)), name, "lacks")


def test_a_missing_head_is_named(tmp_path: Path) -> None:
    expect(write(tmp_path, without("lm_head.weight")), "lm_head.weight")


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    expect(write(tmp_path, num_hidden_layers=3), "model.layers.2.input_layernorm.weight", "4 more")


def test_a_wrong_shape_is_named_with_the_expected_one(tmp_path: Path) -> None:
    spoilt = tensors() | {"model.norm.weight": torch.ones(9)}
    expect(write(tmp_path, spoilt), "model.norm.weight", "[9]", "[8]")


def test_wrong_shapes_of_tensors_that_go_together_are_all_named(tmp_path: Path) -> None:
    expect(write(tmp_path, num_key_value_heads=2), "q_proj.weight [8, 8]", "v_proj", "[24, 8]")


def test_a_tensor_nothing_has_a_place_for_is_named(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.q_proj.bias": torch.ones(8)}
    expect(write(tmp_path, tensors() | extra), "q_proj.bias", "no place")


def test_a_quantized_tensor_is_refused(tmp_path: Path) -> None:
    spoilt = tensors() | {"model.norm.weight": torch.ones(8, dtype=torch.int8)}
    expect(write(tmp_path, spoilt), "model.norm.weight", "I8")


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    expect(write_config(tmp_path), "no weights", "model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights_are_refused_and_safetensors_recommended(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    expect(write_config(tmp_path), name, "pickle", "safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    expect(tmp_path, "model.safetensors", "truncated")


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\xff" * 64, b"\x08" + b"\0" * 7 + b"{]      "]
)
def test_a_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    write_config(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    expect(tmp_path, "model.safetensors", "damaged")


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path: Path) -> None:
    (write_shards(tmp_path) / "model-1.safetensors").unlink()
    expect(tmp_path, "model-1.safetensors", "not there")


def test_an_index_that_names_a_tensor_its_shard_lacks_is_refused(tmp_path: Path) -> None:
    path = write_shards(tmp_path) / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-0.safetensors"
    index["weight_map"]["lm_head.weight"] = "model-1.safetensors"
    write_index(tmp_path, index)
    expect(tmp_path, "promises", "model-")


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_an_index_that_points_outside_its_directory_is_refused(tmp_path: Path, name: str) -> None:
    write_config(tmp_path)
    write_index(tmp_path, {"weight_map": {"model.norm.weight": name}})
    expect(tmp_path, name)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": 3}, {"weight_map": {"a": None}}])
def test_an_index_that_is_no_index_is_refused(tmp_path: Path, index: object) -> None:
    write_config(tmp_path)
    write_index(tmp_path, index)
    expect(tmp_path, "index.json")
