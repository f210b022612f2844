"""Settings are completed by a pure function: same input, same choice, and a reason for each."""

import sys
from dataclasses import replace

import pytest
import torch

from penstock.engine import loading
from penstock.engine.memory import largest_step, with_room
from penstock.engine.resolving import resolve
from penstock.engine.settings import (
    EngineSettings,
    Hardware,
    ModelFacts,
    settings_from,
)
from penstock.kernels.ops import REFERENCE
from penstock.vocabulary.errors import SettingsError

GIB = 2**30
CPU = Hardware(device="cpu", device_name="a processor", free_bytes=16 * GIB, has_kernels=False)
GPU = replace(CPU, device="cuda:0", device_name="a GPU", free_bytes=80 * GIB)
SMALL = ModelFacts(
    name="small",
    architecture="LlamaForCausalLM",
    num_parameters=500_000_000,
    checkpoint_dtype="bfloat16",
    packed_as=None,
    checkpoint_weights="bfloat16",
    max_positions=32_768,
    vocab_size=1000,
    kv_block_bytes={
        "float32": 16 * 24_576,
        "bfloat16": 16 * 12_288,
        "float16": 16 * 12_288,
        "int8": 16 * 6_528,
    },
    head_dim=64,
    biases_keys=False,
)


def resolved(hardware=CPU, model=SMALL, **settings):
    return resolve(EngineSettings(**settings), hardware, model)


@pytest.mark.parametrize("hardware", [CPU, GPU])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_checkpoint_of_integers_is_taken_as_it_is(hardware, weights):
    model = replace(SMALL, checkpoint_weights=weights)
    assert resolved(hardware, model).weights == weights
    assert resolved(hardware, model, weights="bfloat16").weights == "bfloat16"


def test_without_kernels_a_model_is_computed_exactly():
    assert resolved().weights == "float32"
    assert "exact" in resolved().reasons["weights"]


def test_with_kernels_a_model_is_rounded_and_the_exact_way_is_named():
    choice = resolved(replace(CPU, has_kernels=True))
    assert choice.weights == "int8"
    assert "exact: --weights bfloat16" in choice.reasons["weights"]


def test_a_tiny_model_is_not_worth_rounding():
    tiny = replace(SMALL, num_parameters=4_000_000)
    assert resolved(replace(CPU, has_kernels=True), tiny).weights == "float32"


def test_keys_and_values_are_as_exact_as_the_weights():
    assert resolved(weights="float32").kv_dtype == "float32"
    assert resolved(weights="int8").kv_dtype == "bfloat16"
    assert resolved(weights="int8", kv_dtype="float32").kv_dtype == "float32"
    with pytest.raises(SettingsError, match="kv_dtype 'int3'"):
        resolved(kv_dtype="int3")


def test_a_processor_has_no_use_for_float16():
    with pytest.raises(SettingsError, match="float16"):
        resolved(weights="float16")


def test_a_model_too_large_for_that_is_computed_in_bfloat16():
    assert resolved(model=replace(SMALL, num_parameters=3_000_000_000)).weights == "bfloat16"


def test_a_gpu_computes_in_the_checkpoints_own_type():
    assert resolved(GPU).weights == "bfloat16"
    assert resolved(GPU, replace(SMALL, checkpoint_dtype="float16")).weights == "float16"


def test_the_cache_is_fitted_to_the_memory_that_the_weights_leave():
    tight = replace(CPU, free_bytes=3 * GIB)
    choice = resolved(tight, weights="float32")
    assert choice.kv_bytes <= (tight.free_bytes - 4 * SMALL.num_parameters) / 2
    assert choice.reasons["kv_cache"] == "half of what the weights leave free"


def test_a_cache_smaller_than_one_sequence_shortens_the_context_and_says_so():
    choice = resolved(replace(CPU, free_bytes=3 * GIB), weights="float32")
    assert choice.max_model_len == choice.kv_tokens < SMALL.max_positions
    assert "32768" in choice.reasons["max_model_len"]


def test_unless_the_context_was_asked_for():
    with pytest.raises(SettingsError, match="fewer than one sequence of 30000"):
        resolved(replace(CPU, free_bytes=3 * GIB), weights="float32", max_model_len=30_000)


def test_a_cache_is_no_larger_than_could_ever_be_used():
    choice = resolved(replace(CPU, free_bytes=1000 * GIB), max_num_seqs=1)
    assert choice.kv_tokens == SMALL.max_positions


def test_the_cache_can_be_given():
    assert resolved(kv_cache_gib=0.5).kv_bytes <= GIB / 2 < resolved(kv_cache_gib=0.6).kv_bytes


def test_the_budget_leaves_room_for_prompts_beside_all_running_sequences():
    assert resolved(max_num_seqs=600).token_budget == 1200
    assert resolved(token_budget=10).max_num_seqs == 5
    with pytest.raises(SettingsError, match="must be less than token_budget"):
        resolved(max_num_seqs=64, token_budget=64)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": "int3"}, "Unknown weights 'int3'"),
        ({"max_model_len": 100_000}, "not within 2 and the model's 32768"),
        ({"token_budget": 1}, "at least 2"),
        ({"max_num_seqs": -1}, "at least 1"),
        ({"token_budget": 0}, "at least 2"),
        ({"max_num_seqs": 0}, "at least 1"),
        ({"kv_cache_gib": float("nan")}, "kv_cache_gib must be a size, not nan"),
        ({"packed_cache_gib": -1.0}, "packed_cache_gib must be a size, not -1.0"),
        ({"grammar_timeout_s": float("inf")}, "grammar_timeout_s must be above 0, not inf"),
        ({"seed": 2**63}, "seed 9223372036854775808 does not fit into 64 bits"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        resolved(**settings)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="do not fit"):
        resolved(replace(CPU, free_bytes=GIB // 2))


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean max_model_len"):
        settings_from({"max_modle_len": 5})


def test_every_choice_has_a_reason():
    assert set(resolved().reasons) == {
        "weights",
        "kv_dtype",
        "attention",
        "deterministic",
        "max_model_len",
        "token_budget",
        "max_num_seqs",
        "kv_cache",
        "packed_cache",
    }


def test_kernels_for_cpus_are_deterministic_whether_or_not_that_is_asked_for():
    for asked in (False, True):
        choice = resolved(replace(CPU, has_kernels=True), deterministic=asked)
        assert choice.deterministic
        assert "always" in choice.reasons["deterministic"]


def test_a_gpu_s_kernels_are_deterministic_where_that_is_asked_for():
    gpu = replace(GPU, has_kernels=True)
    assert not resolved(gpu).deterministic
    assert resolved(gpu, deterministic=True).deterministic


def test_the_reference_cannot_be_deterministic():
    for hardware in (CPU, GPU):
        assert not resolved(hardware).deterministic
        with pytest.raises(SettingsError, match="kernels of our own"):
            resolved(hardware, deterministic=True)


def test_flashinfer_computes_attention_where_that_is_asked_for():
    gpu = replace(GPU, has_kernels=True)
    assert resolved(gpu).attention == "own"
    assert resolved(gpu, attention="flashinfer").attention == "flashinfer"
    with pytest.raises(SettingsError, match="Unknown attention 'flash'"):
        resolved(gpu, attention="flash")


@pytest.mark.parametrize(
    ("hardware", "model", "settings", "words"),
    [
        ({"device": "cpu"}, {}, {}, "wants a GPU"),
        ({"has_kernels": False}, {}, {}, "our kernels in Triton"),
        ({}, {"biases_keys": True}, {}, "LlamaForCausalLM adds a bias to keys"),
        ({}, {"head_dim": 80}, {}, "heads of 80"),
        ({}, {}, {"kv_dtype": "int8"}, "keys and values in int8"),
        ({}, {}, {"weights": "float32"}, "activations in float32"),
        ({}, {}, {"deterministic": True}, "deterministic"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_flashinfer_is_refused_what_it_cannot_compute(hardware, model, settings, words):
    hardware = replace(GPU, **{"has_kernels": True, **hardware})
    with pytest.raises(SettingsError, match=f"FlashInfer cannot compute this: .*{words}"):
        resolved(hardware, replace(SMALL, **model), attention="flashinfer", **settings)


def test_without_flashinfer_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    choice = resolved(replace(GPU, has_kernels=True), attention="flashinfer")
    with pytest.raises(SettingsError, match="cannot be imported") as refusal:
        loading._with_attention(REFERENCE, choice)
    assert "penstock[flashinfer]" in refusal.value.remedy


def test_weights_in_fp8_are_for_devices_that_multiply_them():
    with pytest.raises(SettingsError, match="fp8"):
        resolved(weights="fp8")
    with pytest.raises(SettingsError, match="fp8"):
        resolved(GPU, weights="fp8")
    assert resolved(replace(GPU, has_fp8=True), weights="fp8").weights == "fp8"


def test_a_gpu_gives_most_of_its_memory_to_keys_and_values():
    choice = resolved(GPU)
    free = GPU.free_bytes - SMALL.num_parameters * 2
    assert 0.89 * free < choice.kv_bytes < 0.91 * free


def test_what_is_measured_decides_in_the_end():
    first = resolved(GPU)
    fitted = with_room(first, EngineSettings(), room=100 * first.block_bytes, workspace=2**20)
    assert (fitted.num_blocks, fitted.max_model_len) == (100, 1600)
    assert "measured at 1 MiB" in fitted.reasons["kv_cache"]
    with pytest.raises(SettingsError, match="fewer than one sequence"):
        with_room(first, EngineSettings(max_model_len=4000), room=0, workspace=0)


@pytest.mark.parametrize(("token_budget", "lens"), [(100, [40, 40, 20]), (80, [40, 40]), (7, [7])])
def test_the_largest_step_has_as_many_tokens_as_a_step_may_have(token_budget, lens):
    asked = resolved(token_budget=token_budget, max_model_len=40, max_num_seqs=5)
    layout = largest_step(asked, torch.device("cpu"))
    assert layout.query_lens_host == layout.context_lens.tolist() == lens
    assert layout.cu_seqlens_q[-1] == len(layout.positions) == token_budget
    assert len(set(layout.slot_mapping.tolist())) == token_budget
    last = layout.slot_mapping[-1] // 16
    assert last == layout.block_table[-1, (lens[-1] - 1) // 16] == layout.block_table.max()
