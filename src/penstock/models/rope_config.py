"""The rotary options of a config.json, in the spellings that old and new checkpoints use."""

import math
from collections.abc import Mapping
from typing import Any

from penstock.models.hf_config import HfConfig
from penstock.models.spec import LinearScaling, Llama3Scaling, Rope, RopeScaling, YarnScaling
from penstock.vocabulary.errors import ModelError

_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_OPTIONS: Mapping[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    # Beyond max_position_embeddings its frequencies would change with the length; up to there it is
    # the default.
    "dynamic": {"factor", "original_max_position_embeddings"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
    "yarn": {
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        "finetuned",
    },
}


def rope(config: HfConfig, head_dim: int, *, partial: bool = False) -> Rope:
    """The rotation a checkpoint asks for. Only a family that says `partial` may leave part of a
    head unturned.
    """
    options = HfConfig(_gathered(config))
    kind = options.value("rope_type", options.value("type", "default"))
    if not isinstance(kind, str) or kind not in _OPTIONS:
        raise ModelError(
            f"config.json asks for the rope scaling {kind!r}, which is not supported.",
            remedy=f"Supported are {', '.join(_OPTIONS)}.",
        )
    if unknown := sorted(set(options.values) - _ALWAYS - _OPTIONS[kind]):
        names = ", ".join(unknown)
        raise ModelError(f"config.json: rope scaling {kind!r} with {names} is not supported.")
    fraction = options.number("partial_rotary_factor", 1.0)
    if not 0 <= fraction <= 1:
        raise ModelError(
            f"config.json: partial_rotary_factor is {fraction}; a head can turn from 0 to 1."
        )
    if fraction != 1.0 and not partial:
        raise ModelError(
            f"config.json: partial_rotary_factor is {fraction}; whole heads must turn here."
        )
    rotary_dim = int(head_dim * fraction)
    if rotary_dim % 2:
        raise ModelError(f"config.json: heads cannot turn by pairs in {rotary_dim} dimensions.")
    theta = options.positive("rope_theta")
    if kind == "yarn" and theta == 1:
        raise ModelError("config.json: rope_theta is 1, where rope scaling 'yarn' has no meaning.")
    return Rope(
        theta=theta,
        rotary_dim=rotary_dim,
        scaling=_scaling(kind, options, config),
    )


def _gathered(config: HfConfig) -> dict[str, Any]:
    """One mapping of all rotary options. What stands inside it wins over what stands beside it. New
    checkpoints have all of it inside rope_parameters, to which people add a rope_scaling by hand.
    """
    parameters = config.value("rope_parameters", None) or {}
    found = config.value("rope_scaling", None) or parameters
    if not isinstance(found, Mapping) or any(
        isinstance(value, Mapping) for value in found.values()
    ):
        raise ModelError(
            "config.json: rope parameters that differ between layers are not supported."
        )
    theta = parameters.get("rope_theta") if isinstance(parameters, Mapping) else None
    beside = {
        "rope_theta": config.value(
            "rope_theta", config.value("rotary_emb_base", 10_000.0 if theta is None else theta)
        ),
        "partial_rotary_factor": config.value(
            "partial_rotary_factor", config.value("rotary_pct", 1.0)
        ),
    }
    return {**beside, **{name: value for name, value in found.items() if value is not None}}


def _scaling(kind: str, options: HfConfig, config: HfConfig) -> RopeScaling | None:
    if kind in ("default", "dynamic"):
        return None
    if kind == "linear":
        return LinearScaling(options.positive("factor"))
    longest = config.integer("max_position_embeddings")
    inside = options.value("original_max_position_embeddings", longest)
    original = config.integer("original_max_position_embeddings", inside)
    if kind == "llama3":
        return Llama3Scaling(
            factor=options.positive("factor"),
            low_freq_factor=options.positive("low_freq_factor"),
            high_freq_factor=options.positive("high_freq_factor"),
            original_positions=original,
        )
    factor = options.positive("factor", longest / original)
    return YarnScaling(
        factor=factor,
        original_positions=original,
        attention_factor=options.number("attention_factor", _yarn_attention(factor, options)),
        beta_fast=options.positive("beta_fast", 32.0),
        beta_slow=options.positive("beta_slow", 1.0),
        truncate=options.flag("truncate", True),
    )


def _yarn_attention(factor: float, options: HfConfig) -> float:
    """How much a longer context sharpens the scores, unless the checkpoint says it outright."""

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1.0 else 1.0

    mscale, all_dim = options.number("mscale", 0), options.number("mscale_all_dim", 0)
    return growth(mscale) / growth(all_dim) if mscale and all_dim else growth(1.0)
