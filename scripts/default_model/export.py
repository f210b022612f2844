"""Writes a model folder that Hugging Face's loaders, and ours, read."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from scripts.default_model.conversations import END, END_OF_TEXT
from scripts.default_model.llama import Llama, Shape
from scripts.default_model.tokenizer import save_tokenizer


def export(model: Llama, shape: Shape, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, generation defaults, tokenizer and bfloat16 weights into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    end_of_text, end = tokenizer.encode(END_OF_TEXT + END).ids
    write_json(folder / "config.json", model_config(shape, end_of_text))
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "eos_token_id": [end_of_text, end],
            "pad_token_id": end_of_text,
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.95,
            "repetition_penalty": 1.1,  # so small a model falls into loops without it
        },
    )
    save_tokenizer(tokenizer, folder, context_len=shape.max_position_embeddings)
    weights = {
        name: weight.detach().to(torch.bfloat16).contiguous()
        for name, weight in model.state_dict().items()
    }
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the writer leaves it readable by its owner alone


def model_config(shape: Shape, end_of_text: int) -> dict[str, object]:
    """A Hugging Face config of the Llama family."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(shape),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    """Two-space JSON with a closing newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
