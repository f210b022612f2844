"""Falcon and Falcon-RW (https://arxiv.org/abs/2311.16867).

Read it as: GPT-NeoX, except that few key-value heads serve all queries, whole heads turn (or ALiBi
takes the place of turning), and attention and MLP share a norm, have one each, or follow one
another, depending on the generation.
"""

import torch

from penstock.models.hf_config import HfConfig
from penstock.models.rope_config import rope
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
    hidden, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim, bias = hidden // num_heads, config.flag("bias", False)
    num_kv_heads = config.integer("num_kv_heads", num_heads)
    if config.flag("multi_query", True) and not config.flag("new_decoder_architecture", False):
        num_kv_heads = 1
    alibi = Alibi(scale=head_dim**-0.5, precision=torch.bfloat16)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_positions=config.integer("max_position_embeddings", 2048),
        norm=LayerNorm(config.number("layer_norm_epsilon", 1e-5)),
        position=alibi if config.flag("alibi", False) else rope(config, head_dim),
        mlp=Plain(
            intermediate=config.integer("ffn_hidden_size", 4 * hidden),
            activation=config.activation("activation", "gelu"),
            bias=bias,
        ),
        residual=_residual(config),
        qkv_bias=bias,
        out_bias=bias,
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
