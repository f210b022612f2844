"""Qwen3 (https://arxiv.org/abs/2505.09388).

Read it as: Qwen2, except that queries and keys are normalised head by head, the biases are an
option, and the size of a head is independent of the width.
"""

from dataclasses import replace

from penstock.models.families import llama, qwen2
from penstock.models.hf_config import HfConfig
from penstock.models.sources import Source
from penstock.models.spec import DecoderSpec


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Qwen3 configuration."""
    config = config.with_defaults(max_position_embeddings=32_768, head_dim=128)
    like_llama = llama.spec(config)
    windows = qwen2.windows(config, like_llama.num_layers)
    return replace(like_llama, qk_norm=True, windows=windows)


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """As Llama's, with two more norms in each layer."""
    return llama.weights(spec) | {
        "q_norm": llama.LAYER + "self_attn.q_norm",
        "k_norm": llama.LAYER + "self_attn.k_norm",
    }
