"""OPT (https://arxiv.org/abs/2205.01068).

Read it as: Llama, except for LayerNorm, a plain MLP, biases, and a learned vector per position, two
rows into its table. The 350M model normalises after each part and has an embedding narrower than
its stream.
"""

from penstock.models.hf_config import HfConfig
from penstock.models.sources import Joined, Source
from penstock.models.spec import DecoderSpec, LayerNorm, Learned, Plain, Sequential

LAYER = "model.decoder.layers.{layer}."


def spec(config: HfConfig) -> DecoderSpec:
    """Read an OPT configuration."""
    config.refuse(layer_norm_elementwise_affine=True)
    hidden, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    width = config.integer("word_embed_proj_dim", hidden)
    bias = config.flag("enable_bias", True)
    before = config.flag("do_layer_norm_before", True)
    return DecoderSpec(
        vocab_size=config.integer("vocab_size"),
        hidden=hidden,
        num_layers=config.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=max(1, hidden // num_heads),
        max_positions=config.integer("max_position_embeddings", 2048),
        norm=LayerNorm(1e-5),
        position=Learned(offset=2),
        mlp=Plain(
            intermediate=config.integer("ffn_dim"),
            activation=config.activation("activation_function", "relu"),
            bias=bias,
        ),
        residual=Sequential("before" if before else "after"),
        qkv_bias=bias,
        out_bias=bias,
        final_norm=before and not config.flag("_remove_final_layer_norm", False),
        embedding_width=None if width == hidden else width,
        tied=config.flag("tie_word_embeddings", True),
    )


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """Where OPT checkpoints keep what each slot needs. A layer's "final" norm is the one of its
    MLP.
    """
    return {
        "embedding": "model.decoder.embed_tokens",
        "positions": "model.decoder.embed_positions",
        "project_in": "model.decoder.project_in",
        "attention_norm": LAYER + "self_attn_layer_norm",
        "qkv": Joined(*(f"{LAYER}self_attn.{part}_proj" for part in "qkv")),
        "out": LAYER + "self_attn.out_proj",
        "mlp_norm": LAYER + "final_layer_norm",
        "up": LAYER + "fc1",
        "down": LAYER + "fc2",
        "final_norm": "model.decoder.final_layer_norm",
        "project_out": "model.decoder.project_out",
        "head": "lm_head",
    }
