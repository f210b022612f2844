"""Mixtral (https://arxiv.org/abs/2401.04088).

Read it as: Mistral, except that a router sends each token through a few of many gated MLPs.
"""

from dataclasses import replace

from penstock.models.families import mistral
from penstock.models.hf_config import HfConfig
from penstock.models.sources import PerExpert, Source
from penstock.models.spec import DecoderSpec, Experts

EXPERTS = "model.layers.{layer}.block_sparse_moe."


def spec(config: HfConfig) -> DecoderSpec:
    """Read a Mixtral configuration."""
    config = config.with_defaults(sliding_window=None, rms_norm_eps=1e-5, rope_theta=1e6)
    return replace(
        mistral.spec(config),
        mlp=Experts(
            intermediate=config.integer("intermediate_size"),
            count=config.integer("num_local_experts", 8),
            top_k=config.integer("num_experts_per_tok", 2),
            activation=config.activation("hidden_act", "silu"),
        ),
    )


def weights(spec: DecoderSpec) -> dict[str, Source]:
    """As Mistral's, with a router and three matrices per expert in place of the MLP."""
    expert = EXPERTS + "experts.{expert}."
    return mistral.weights(spec) | {
        "router": EXPERTS + "gate",
        "experts": PerExpert(gate=expert + "w1", up=expert + "w3", down=expert + "w2"),
    }
