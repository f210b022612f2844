"""GPT-NeoX and Pythia (https://arxiv.org/abs/2204.06745).

Read it as: Llama, except for LayerNorm, a plain MLP, biases, heads that turn in part, one matrix
for queries, keys and values, and attention and MLP that may read the stream in parallel.
"""

from penstock.models.hf_config import HfConfig
from penstock.models.rope_config import rope
from penstock.models.sources import GroupedQkv, Source
from penstock.models.spec import DecoderSpec, LayerNorm, Parallel, Plain, Sequential

LAYER = "gpt_neox.layers.{layer}."


def spec(config: HfConfig) -> DecoderSpec:
    """Read a GPT-NeoX configuration. A quarter of each head turns unless it says otherwise."""
    config = config.with_defaults(rotary_pct=0.25)
    hidden, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    attention_bias = config.flag("attention_bias", True)
    parallel = config.flag("use_parallel_residual", True)
    head_dim = max(1, hidden // num_heads)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        max_positions=config.integer("max_position_embeddings", 2048),
        norm=LayerNorm(config.number("layer_norm_eps", 1e-5)),
        position=rope(config, head_dim, partial=True),
        mlp=Plain(
            intermediate=config.integer("intermediate_size"),
            activation=config.activation("hidden_act", "gelu"),
        ),
        residual=Parallel("separate") if parallel else Sequential(),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        tied=config.flag("tie_word_embeddings", False),
    )


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Where GPT-NeoX checkpoints keep what each slot needs."""
    return {
        "embedding": "gpt_neox.embed_in",
        "attention_norm": LAYER + "input_layernorm",
        "qkv": GroupedQkv(LAYER + "attention.query_key_value", spec.num_kv_heads, spec.head_dim),
        "out": LAYER + "attention.dense",
        "mlp_norm": LAYER + "post_attention_layernorm",
        "up": LAYER + "mlp.dense_h_to_4h",
        "down": LAYER + "mlp.dense_4h_to_h",
        "final_norm": "gpt_neox.final_layer_norm",
        "head": "embed_out",
    }
