"""Phi-1, Phi-1.5 and Phi-2 (https://arxiv.org/abs/2309.05463).

Read it as: Llama, except for LayerNorm, a plain MLP, biases even in the head, heads that turn in
part, and attention and MLP that read the same normalised stream.
"""

from penstock.models.families import llama
from penstock.models.hf_config import HfConfig
from penstock.models.rope_config import rope
from penstock.models.sources import Source
from penstock.models.spec import DecoderSpec, LayerNorm, Parallel, Plain

LAYER = "model.layers.{layer}."


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Phi configuration. Half of each head turns unless something else is written."""
    config = config.with_defaults(partial_rotary_factor=0.5)
    hidden, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", max(1, hidden // num_heads))
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=config.integer("num_key_value_heads", num_heads),
        head_dim=head_dim,
        max_positions=config.integer("max_position_embeddings", 2048),
        norm=LayerNorm(config.number("layer_norm_eps", 1e-5)),
        position=rope(config, head_dim, partial=True),
        mlp=Plain(
            intermediate=config.integer("intermediate_size"),
            activation=config.activation("hidden_act", "gelu_new"),
        ),
        residual=Parallel("shared"),
        qk_norm=config.flag("qk_layernorm", False),
        qkv_bias=True,
        out_bias=True,
        tied=config.flag("tie_word_embeddings", False),
        head_bias=True,
    )


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """As Llama's, with other names for the norms, the MLP and the projection out of attention."""
    return llama.weights(spec) | {
        "q_norm": LAYER + "self_attn.q_layernorm",
        "k_norm": LAYER + "self_attn.k_layernorm",
        "out": LAYER + "self_attn.dense",
        "up": LAYER + "mlp.fc1",
        "down": LAYER + "mlp.fc2",
        "final_norm": "model.final_layernorm",
    }
