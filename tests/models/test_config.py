"""What is taken from config.json and generation_config.json, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock.models.families import ARCHITECTURES
from penstock.models.loading import ModelConfig, read_config
from penstock.models.spec import Llama3Scaling, Rope
from penstock.vocabulary.errors import ModelError
from tests.models.checkpoints import write_config


def read(directory: Path, **changes: Any) -> ModelConfig:
    return read_config(write_config(directory, **changes))


def rope_of(directory: Path, **changes: Any) -> Rope:
    position = read(directory, **changes).spec.position
    assert isinstance(position, Rope)
    return position


def refused(directory: Path, **changes: Any) -> str:
    with pytest.raises(ModelError) as caught:
        read(directory, **changes)
    return str(caught.value)


def test_sizes_and_kind_are_read(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.architecture == "LlamaForCausalLM"
    assert (config.spec.vocab_size, config.spec.num_layers, config.spec.head_dim) == (32, 2, 4)
    assert config.hf["hidden_size"] == 8


def test_one_end_token_or_several(tmp_path: Path) -> None:
    assert read(tmp_path).eos_token_ids == [2]
    assert read(tmp_path, eos_token_id=[2, 7]).eos_token_ids == [2, 7]
    assert read(tmp_path, eos_token_id=None).eos_token_ids == []


def test_generation_config_names_end_tokens_and_recommends_sampling(tmp_path: Path) -> None:
    advice = {"eos_token_id": [5, 6], "temperature": 0.6, "top_k": 20, "max_length": 9}
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    config = read(tmp_path)
    assert config.eos_token_ids == [5, 6]
    assert config.sampling_defaults == {"temperature": 0.6, "top_k": 20}


def test_without_end_tokens_in_generation_config_those_of_config_hold(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null}')
    assert read(tmp_path).eos_token_ids == [2]


def test_an_end_token_that_the_model_cannot_draw_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, eos_token_id=-1).eos_token_ids == []
    assert read(tmp_path, eos_token_id=[2, 32, 2**70]).eos_token_ids == [2]
    assert "must be integers" in refused(tmp_path, eos_token_id=True)


def test_sampling_advice_of_a_model_that_does_not_sample_is_not_taken(tmp_path: Path) -> None:
    advice = {"do_sample": False, "temperature": 0.6}
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    assert read(tmp_path).sampling_defaults == {}


def test_the_type_of_the_weights_in_both_spellings(tmp_path: Path) -> None:
    assert read(tmp_path, torch_dtype="bfloat16").dtype == torch.bfloat16
    assert read(tmp_path, torch_dtype=..., dtype="float16").dtype == torch.float16
    assert "float8" in refused(tmp_path, torch_dtype="float8_e4m3fn")


def test_rotary_options_in_both_spellings(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    old = rope_of(tmp_path, rope_theta=500.0, rope_scaling=scaling)
    new = rope_of(tmp_path, rope_theta=..., rope_parameters={**scaling, "rope_theta": 500.0})
    assert old == new
    assert old.theta == 500.0
    assert isinstance(old.scaling, Llama3Scaling)


def test_a_scaling_added_by_hand_leaves_the_base_that_the_checkpoint_names(tmp_path: Path) -> None:
    rope = rope_of(
        tmp_path,
        rope_theta=...,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rope_scaling={"type": "linear", "factor": 2.0},
    )
    assert rope.theta == 1e6 and rope.scaling is not None


def test_the_oldest_spelling_of_a_rope_type(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    assert rope_of(tmp_path, rope_scaling=scaling).scaling is not None


@pytest.mark.parametrize("kind", ["longrope", "su", "mrope", "proportional"])
def test_an_unknown_rope_scaling_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    assert repr(kind) in refused(tmp_path, rope_scaling={"rope_type": kind, "factor": 2.0})


def test_an_unknown_option_of_a_rope_scaling_is_refused_by_name(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0, "mrope_section": [1, 2]}
    assert "mrope_section" in refused(tmp_path, rope_scaling=scaling)


def test_rotary_options_that_differ_between_layers_are_refused(tmp_path: Path) -> None:
    nested = {"full_attention": {"rope_type": "default"}}
    assert "between layers" in refused(tmp_path, rope_parameters=nested)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("quantization_config", {"quant_method": "gptq"}),
        ("hidden_act", "mish"),
        ("partial_rotary_factor", 0.5),
        ("is_encoder_decoder", True),
        ("attn_logit_softcapping", 50.0),
        ("hidden_size", "8"),
        ("num_hidden_layers", 0),
        ("num_attention_heads", True),
        ("tie_word_embeddings", "yes"),
        ("rms_norm_eps", "small"),
    ],
)
def test_an_option_that_is_not_supported_or_makes_no_sense_is_named(
    tmp_path: Path, option: str, value: object
) -> None:
    assert option in refused(tmp_path, **{option: value})


def test_a_missing_size_is_named(tmp_path: Path) -> None:
    assert "intermediate_size" in refused(tmp_path, intermediate_size=...)


def test_heads_that_cannot_be_shared_evenly_are_refused(tmp_path: Path) -> None:
    assert "evenly" in refused(tmp_path, num_attention_heads=4, num_key_value_heads=3)


def test_an_unknown_architecture_is_named_with_the_nearest_supported(tmp_path: Path) -> None:
    said = refused(tmp_path, architectures=["Qwen2MoeForCausalLM"])
    assert "Qwen2MoeForCausalLM" in said and "nearest that is, is Qwen2ForCausalLM" in said


def test_every_supported_architecture_is_listed_when_one_is_not(tmp_path: Path) -> None:
    said = refused(tmp_path, architectures=["T5"])
    assert all(name in said for name in ARCHITECTURES)


@pytest.mark.parametrize("named", [..., None, [], "Llama", [3]])
def test_a_config_without_an_architecture_is_refused(tmp_path: Path, named: object) -> None:
    assert "architecture" in refused(tmp_path, architectures=named)


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({"rope_theta": float("nan")}, "rope_theta must be a finite number"),
        ({"hidden_size": 10**400}, "hidden_size must be a positive integer"),
        ({"rope_scaling": {"rope_type": []}}, "rope scaling [], which is not supported"),
        (
            {"rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": "far"}},
            "original_max_position_embeddings must be a positive integer",
        ),
        ({"rope_theta": 0.0}, "rope_theta must be above 0, not 0.0"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor must be above 0"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": -4.0}}, "factor must be above 0"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 0}},
            "beta_fast must be above 0",
        ),
        ({"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_theta"),
        ({"partial_rotary_factor": 2.0}, "a head can turn from 0 to 1"),
        ({"partial_rotary_factor": -1.0}, "a head can turn from 0 to 1"),
        (
            {
                "architectures": ["MixtralForCausalLM"],
                "num_local_experts": 2,
                "num_experts_per_tok": 3,
            },
            "num_experts_per_tok",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": "m"}},
            "mscale must be a finite number",
        ),
    ],
)
def test_values_that_no_model_can_have_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, **changes)


def test_more_heads_than_dimensions_are_refused(tmp_path: Path) -> None:
    falcon = {"architectures": ["FalconForCausalLM"], "num_attention_heads": 16}
    assert "turn by pairs" in refused(tmp_path, **falcon)


def test_a_recommended_sampling_option_must_be_a_number(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot"}')
    assert "temperature must be a finite number, not 'hot'" in refused(tmp_path)


def test_sampling_advice_that_nobody_can_follow_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 3.5}')
    assert "generation_config.json recommends what cannot be: temperature" in refused(tmp_path)
