"""Mistral (https://arxiv.org/abs/2310.06825).

Read it as: Llama, except that every layer attends to a sliding window only.
"""

from dataclasses import replace

from penstock.models.families import llama
from penstock.models.hf_config import HfConfig
from penstock.models.sources import Source
from penstock.models.spec import DecoderSpec


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Mistral configuration. A window of null means none; an unwritten one is 4096."""
    config = config.with_defaults(
        num_key_value_heads=8, sliding_window=4096, max_position_embeddings=131_072
    )
    like_llama = llama.spec(config)
    window = config.optional_integer("sliding_window")
    return replace(like_llama, windows=(window,) * like_llama.num_layers)


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Mistral checkpoints name their tensors as Llama's do."""
    return llama.weights(spec)
