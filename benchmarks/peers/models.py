"""The models that are measured: real shapes, random weights, a tokenizer trained on the spot.

Speed does not depend on what the weights are, only on how many there are and how they are laid out;
so nothing needs to be downloaded.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from scripts.default_model.corpus import load_corpus
from scripts.default_model.tokenizer import save_tokenizer, train_tokenizer
from tokenizers import Tokenizer

OnTensor = Callable[[], None]
"""Told that one more tensor has been made."""

_STD = 0.02  # the usual initial scale: activations stay near 1 through all layers
_DONE = "made"  # a file written last, so that a folder half made is made again


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's sizes, as its published config.json has them."""

    name: str
    model_type: str
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int
    rope_theta: float
    rms_norm_eps: float
    tied_embeddings: bool
    qkv_bias: bool

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.hidden_size // self.num_heads


QWEN = Shape(
    name="qwen2.5-0.5b",
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    max_positions=32_768,
    rope_theta=1_000_000.0,
    rms_norm_eps=1e-6,
    tied_embeddings=True,
    qkv_bias=True,
)
TINYLLAMA = Shape(
    name="tinyllama-1.1b",
    model_type="llama",
    architecture="LlamaForCausalLM",
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_layers=22,
    num_heads=32,
    num_kv_heads=4,
    max_positions=2048,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tied_embeddings=False,
    qkv_bias=False,
)
SHAPES = {shape.name: shape for shape in (QWEN, TINYLLAMA)}


def make_model(shape: Shape, folder: Path, on_tensor: OnTensor) -> None:
    """Write a Hugging Face folder with bfloat16 weights, unless it is there already."""
    if (folder / _DONE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = {}
    for name, size in tensors(shape):
        weights[name] = _random(name, size)
        on_tensor()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config(shape))
    tokenizer = padded_tokenizer(shape.vocab_size)
    save_tokenizer(tokenizer, folder, context_len=shape.max_positions)
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "do_sample": False},
    )
    (folder / _DONE).touch()


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and size of every tensor of the checkpoint."""
    hidden, inner, kv = shape.hidden_size, shape.intermediate_size, shape.kv_size
    yield "model.embed_tokens.weight", (shape.vocab_size, hidden)
    for number in range(shape.num_layers):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, hidden)
            if shape.qkv_bias:
                yield f"{layer}.self_attn.{name}_proj.bias", (rows,)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not shape.tied_embeddings:
        yield "lm_head.weight", (shape.vocab_size, hidden)


def config(shape: Shape) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": [shape.architecture],
        "model_type": shape.model_type,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "max_position_embeddings": shape.max_positions,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": shape.tied_embeddings,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def padded_tokenizer(vocab_size: int) -> Tokenizer:
    """As many merges as the standard library's sources give, then tokens that nothing becomes."""
    texts = (document.text for document in load_corpus().training)
    trained = json.loads(train_tokenizer(texts, vocab_size=vocab_size).to_str())
    vocab = trained["model"]["vocab"]
    for number in range(len(vocab), vocab_size):
        vocab[f"<unused{number}>"] = number
    return Tokenizer.from_str(json.dumps(trained))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Two-space JSON with a closing newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _random(name: str, size: tuple[int, ...]) -> torch.Tensor:
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    return (torch.randn(size) * _STD).to(torch.bfloat16)
