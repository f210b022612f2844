"""Turns a Hugging Face folder of the Llama or Qwen2 kind into a quantized GGUF file.

llama-cpp-python brings the quantizer, but not the program that reads checkpoints.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
FILE_TYPES = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def main() -> None:
    """Write `output`/model.gguf."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", choices=FILE_TYPES, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    exact = options.output / "float32.gguf"
    write_float32(options.model, exact)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[options.weights]
    params.nthread = options.threads
    target = str(options.output / "model.gguf").encode()
    failed = llama_cpp.llama_model_quantize(str(exact).encode(), target, params)
    exact.unlink()
    if failed:
        raise SystemExit(f"llama_model_quantize failed with {failed}")


def write_float32(model: Path, target: Path) -> None:
    """The checkpoint as GGUF, nothing lost."""
    config = json.loads((model / "config.json").read_text())
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[architecture])
    add_sizes(writer, config)
    add_tokenizer(writer, json.loads((model / "tokenizer.json").read_text())["model"])
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, tensor in bfloat16_tensors(model / "model.safetensors"):
        if config["model_type"] == "llama":
            tensor = interleave(name, tensor, config)
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The architecture's numbers."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(writer: gguf.GGUFWriter, bpe: dict[str, Any]) -> None:
    """The byte-level vocabulary and its merges."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].__getitem__))
    writer.add_token_types([gguf.TokenType.NORMAL] * len(bpe["vocab"]))
    writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)


def bfloat16_tensors(path: Path) -> Iterator[tuple[str, numpy.ndarray]]:
    """Name and float32 values of every tensor of a safetensors file that holds bfloat16."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start = file.tell()
    content = numpy.memmap(path, dtype=numpy.uint8, mode="r", offset=start)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        halves = content[begin:end].view(numpy.uint16).astype(numpy.uint32)
        yield name, (halves << 16).view(numpy.float32).reshape(entry["shape"])


def interleave(name: str, tensor: numpy.ndarray, config: dict[str, Any]) -> numpy.ndarray:
    """llama.cpp rotates neighbouring dimensions of a Llama's heads, checkpoints opposite ones."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, count in heads.items():
        if part in name:
            halves = tensor.reshape(config[count], 2, -1, tensor.shape[-1])
            return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor


if __name__ == "__main__":
    main()
