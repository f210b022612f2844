"""Llama: RMSNorm before each part, rotary heads, a gated MLP, no biases
(https://arxiv.org/abs/2302.13971).

Read it as: the decoder everything else here is compared with. Grouped key-value heads came with
https://arxiv.org/abs/2307.09288, the scaled rotation of long contexts with
https://arxiv.org/abs/2407.21783.
"""

from penstock.models.hf_config import HfConfig
from penstock.models.rope_config import rope
from penstock.models.sources import Joined, Source
from penstock.models.spec import DecoderSpec, Gated, RmsNorm

LAYER = "model.layers.{layer}."


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Llama configuration."""
    hidden, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", max(1, hidden // num_heads))
    attention_bias = config.flag("attention_bias", False)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        max_positions=config.integer("max_position_embeddings", 2048),
        norm=RmsNorm(config.number("rms_norm_eps", 1e-6)),
        position=rope(config, head_dim),
        mlp=Gated(
            intermediate=config.integer("intermediate_size"),
            activation=config.activation("hidden_act", "silu"),
            bias=config.flag("mlp_bias", False),
        ),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        tied=config.flag("tie_word_embeddings", False),
    )


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Where Llama checkpoints keep what each slot needs."""
    return {
        "embedding": "model.embed_tokens",
        "attention_norm": LAYER + "input_layernorm",
        "qkv": Joined(*(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
        "out": LAYER + "self_attn.o_proj",
        "mlp_norm": LAYER + "post_attention_layernorm",
        "gate_up": Joined(LAYER + "mlp.gate_proj", LAYER + "mlp.up_proj"),
        "down": LAYER + "mlp.down_proj",
        "final_norm": "model.norm",
        "head": "lm_head",
    }
