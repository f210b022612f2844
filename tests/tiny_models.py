"""Tiny random models of every family and of the variants worth a test, made on the spot by
transformers.

Every parameter is random, norms and biases too, so that nothing hides behind a zero or a one.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

VOCAB_SIZE = 128
MAX_POSITIONS = 256

COMMON: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
GATED: Mapping[str, Any] = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 2}
FALCON: Mapping[str, Any] = {**COMMON, "ffn_hidden_size": 48}
LLAMA3: Mapping[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN: Mapping[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def tiny_model(family: str, **options: Any) -> Any:
    """A seeded transformers model of a family, with these options."""
    return _make(family, **options)()


def _make(family: str, **options: Any) -> Callable[[], Any]:
    """A function that makes a seeded transformers model of a family, with these options."""

    def make() -> Any:
        import transformers

        config = getattr(transformers, f"{family}Config")(**options)
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.normal_(mean, 0.2)
        return model.eval()

    return make


TINY_FAMILIES: Mapping[str, Callable[[], Any]] = {
    "llama": _make("Llama", **GATED),
    "llama-with-biases": _make("Llama", **GATED, attention_bias=True, mlp_bias=True),
    "llama-tied": _make("Llama", **GATED, tie_word_embeddings=True),
    "llama-3-scaling": _make("Llama", **GATED, rope_parameters=LLAMA3),
    "llama-linear-scaling": _make(
        "Llama",
        **GATED,
        rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    ),
    "llama-dynamic-scaling": _make(
        "Llama", **GATED, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "llama-yarn": _make("Llama", **GATED, rope_parameters=YARN),
    "mistral": _make("Mistral", **GATED, sliding_window=None),
    "mistral-short-window": _make("Mistral", **GATED, sliding_window=5),
    "mixtral": _make("Mixtral", **GATED, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": _make("Qwen2", **GATED),
    "qwen2-some-windows": _make(
        "Qwen2", **GATED, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "qwen3": _make("Qwen3", **GATED, head_dim=16),
    "gpt_neox": _make("GPTNeoX", **COMMON, intermediate_size=48),
    "gpt_neox-sequential": _make(
        "GPTNeoX", **COMMON, intermediate_size=48, use_parallel_residual=False, rotary_pct=1.0
    ),
    "falcon": _make("Falcon", **FALCON),
    "falcon-new-decoder": _make("Falcon", **FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon-new-decoder-one-norm": _make(
        "Falcon",
        **FALCON,
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
    ),
    "falcon-alibi": _make(
        "Falcon",
        **(FALCON | {"hidden_size": 48, "num_attention_heads": 6}),
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
    "opt": _make("OPT", **COMMON, ffn_dim=48),
    "opt-norm-after": _make(
        "OPT", **COMMON, ffn_dim=48, do_layer_norm_before=False, word_embed_proj_dim=16
    ),
    "phi": _make("Phi", **GATED),
    "phi-with-head-norms": _make("Phi", **GATED, qk_layernorm=True),
}
"""Name to a function that makes the model. The part before the first hyphen is the family."""


def make_tiny_checkpoint(name: str, directory: Path) -> Path:
    """Save the model called `name` into `directory`, as transformers does, and return the
    directory.
    """
    save(TINY_FAMILIES[name](), directory)
    return directory


def save(model: Any, directory: Path, **options: Any) -> None:
    """Save a transformers model quietly."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    model.save_pretrained(directory, **options)
