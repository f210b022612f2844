"""Turns a Hugging Face folder into the W8A8 kind of compressed-tensors checkpoint that vLLM reads.

Weights in int8 with a scale per row; activations are quantized per token as they come.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

QUANTIZATION = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "channel",
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def main() -> None:
    """Write the folder `output`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(options.model / name, options.output / name)
    config: dict[str, Any] = json.loads((options.model / "config.json").read_text())
    config["quantization_config"] = QUANTIZATION
    (options.output / "config.json").write_text(json.dumps(config, indent=2))
    tensors = load_file(options.model / "model.safetensors")
    quantized = {
        new_name: new
        for name, tensor in tensors.items()
        for new_name, new in quantize(name, tensor).items()
    }
    save_file(quantized, options.output / "model.safetensors", metadata={"format": "pt"})


def quantize(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A projection's weight as int8 and scales; every other tensor as it is."""
    if not name.endswith("_proj.weight"):
        return {name: tensor}
    weight = tensor.float()
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    rounded = torch.round(weight / scale).clamp(-128, 127).to(torch.int8)
    return {name: rounded, f"{name}_scale": scale.to(tensor.dtype)}


if __name__ == "__main__":
    main()
