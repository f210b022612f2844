"""A tiny checkpoint written by hand, so that tests can spoil it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from penstock.kernels.ops import REFERENCE
from penstock.models.decoder import Decoder
from penstock.models.loading import load_decoder, read_config

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYER_SHAPES = {
    "input_layernorm": (8,),
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "post_attention_layernorm": (8,),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
}


def tensors() -> dict[str, Tensor]:
    """Random weights by their names in a Llama checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (32, 8),
        "model.norm": (8,),
        "lm_head": (32, 8),
    }
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.{name}": size for name, size in LAYER_SHAPES.items()}
    generator = torch.Generator().manual_seed(0)
    return {
        f"{name}.weight": torch.randn(*size, generator=generator) for name, size in shapes.items()
    }


def write_config(directory: Path, **changes: Any) -> Path:
    """config.json with these changes; the ellipsis removes an option."""
    options = {name: value for name, value in (CONFIG | changes).items() if value is not ...}
    (directory / "config.json").write_text(json.dumps(options))
    return directory


def write(directory: Path, weights: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A whole model directory, with changes to its configuration."""
    save_file(tensors() if weights is None else weights, directory / "model.safetensors")
    return write_config(directory, **changes)


def write_shards(directory: Path) -> Path:
    """The same model in two files and an index."""
    names = sorted(tensors())
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file_name = f"model-{number}.safetensors"
        save_file({name: tensors()[name] for name in part}, directory / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    write_index(directory, {"weight_map": weight_map})
    return write_config(directory)


def write_index(directory: Path, index: Any) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def load(
    directory: Path,
    weights: str = "float32",
    on_progress: Callable[[int, int], None] | None = None,
) -> Decoder:
    return load_decoder(
        directory,
        read_config(directory),
        weights=weights,
        dtype=torch.float32,
        device=torch.device("cpu"),
        ops=REFERENCE,
        on_progress=on_progress,
    )
