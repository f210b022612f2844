"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671).

Read it as: Llama, except that queries, keys and values have biases, and that some layers may use a
window.
"""

from dataclasses import replace

from penstock.models.families import llama
from penstock.models.hf_config import HfConfig
from penstock.models.sources import Source
from penstock.models.spec import DecoderSpec
from penstock.vocabulary.errors import ModelError


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Qwen2 configuration."""
    config = config.with_defaults(max_position_embeddings=32_768)
    like_llama = llama.spec(config)
    return replace(like_llama, qkv_bias=True, windows=windows(config, like_llama.num_layers))


def windows(config: HfConfig, num_layers: int) -> tuple[int | None, ...]:
    """The window of each layer: by kind where kinds are listed, else from a layer on, and only if
    switched on.
    """
    first = config.value("max_window_layers", 28)
    kinds = config.value(
        "layer_types",
        ["sliding_attention" if i >= first else "full_attention" for i in range(num_layers)],
    )
    window = None
    if config.flag("use_sliding_window", False):
        window = config.integer("sliding_window", 4096)
    known = {"full_attention": None, "sliding_attention": window}
    if len(kinds) != num_layers or not set(kinds) <= known.keys():
        raise ModelError(
            f"config.json: layer_types {kinds} are not supported for {num_layers} layers."
        )
    return tuple(known[kind] for kind in kinds)


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Qwen2 checkpoints name their tensors as Llama's do."""
    return llama.weights(spec)
