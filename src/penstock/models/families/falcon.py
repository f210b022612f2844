"""Falcon and Falcon-RW (https://arxiv.org/abs/2311.16867).

Read it as: GPT-NeoX, except that few key-value heads serve all queries, whole heads turn (or ALiBi
takes its place), and attention and MLP share a norm, have one each, or follow one another.
"""

from dataclasses import replace

import torch

from penstock.models.families import gpt_neox
from penstock.models.hf_config import HfConfig
from penstock.models.sources import GroupedQkv, Source
from penstock.models.spec import (
    Alibi,
    DecoderSpec,
    LayerNorm,
    Parallel,
    Plain,
    Residual,
    Sequential,
)

LAYER = "transformer.h.{layer}."


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Falcon configuration."""
    intermediate = config.integer("ffn_hidden_size", 4 * config.integer("hidden_size"))
    bias = config.flag("bias", False)
    like_neox = gpt_neox.spec(
        config.with_defaults(rotary_pct=1.0, attention_bias=bias, intermediate_size=intermediate)
    )
    num_kv_heads = config.integer("num_kv_heads", like_neox.num_heads)
    if config.flag("multi_query", True) and not config.flag("new_decoder_architecture", False):
        num_kv_heads = 1
    alibi = Alibi(scale=like_neox.head_dim**-0.5, precision=torch.bfloat16)
    activation = config.activation("activation", "gelu")
    return replace(
        like_neox,
        num_kv_heads=num_kv_heads,
        norm=LayerNorm(config.number("layer_norm_epsilon", 1e-5)),
        position=alibi if config.flag("alibi", False) else like_neox.position,
        mlp=Plain(intermediate=intermediate, activation=activation, bias=bias),
        residual=_residual(config),
        tied=config.flag("tie_word_embeddings", True),
    )


def _residual(config: HfConfig) -> Residual:
    """The 40B generation has two norms unless it says one; before it, one norm if parallel, or a
    sequence.
    """
    if config.flag("new_decoder_architecture", False):
        config.refuse(parallel_attn=True)
        two = config.integer("num_ln_in_parallel_attn", 2) == 2
        return Parallel("separate" if two else "shared")
    return Parallel("shared") if config.flag("parallel_attn", True) else Sequential()


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Where Falcon checkpoints keep what each slot needs."""
    two_norms = spec.residual == Parallel("separate")
    sequential = spec.residual == Sequential()
    return {
        "embedding": "transformer.word_embeddings",
        "attention_norm": LAYER + ("ln_attn" if two_norms else "input_layernorm"),
        "qkv": GroupedQkv(
            LAYER + "self_attention.query_key_value", spec.num_kv_heads, spec.head_dim
        ),
        "out": LAYER + "self_attention.dense",
        "mlp_norm": LAYER + ("post_attention_layernorm" if sequential else "ln_mlp"),
        "up": LAYER + "mlp.dense_h_to_4h",
        "down": LAYER + "mlp.dense_4h_to_h",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
    }
