"""A model directory's configuration, read once into what the engine needs to know of it."""

import difflib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from penstock.models.compressed_tensors import Compression, read_compression
from penstock.models.families import ARCHITECTURES
from penstock.models.hf_config import HfConfig, finite
from penstock.models.sources import Source
from penstock.models.spec import DecoderSpec, Experts
from penstock.vocabulary.errors import InvalidRequest, ModelError
from penstock.vocabulary.sampling_params import SamplingParams

SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Family(Protocol):
    """What a family's module offers."""

    def spec(self, config: HfConfig) -> DecoderSpec:
        """The decoder that a configuration describes."""

    def weights(self, spec: DecoderSpec) -> dict[str, Source]:
        """Where its checkpoints keep what each slot, by name, needs."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What config.json and generation_config.json say."""

    spec: DecoderSpec
    architecture: str
    dtype: torch.dtype
    """The type the checkpoint's weights are said to be stored in."""
    eos_token_ids: list[int]
    sampling_defaults: dict[str, Any]
    """The sampling options the model's authors recommend, by their Hugging Face names."""
    compression: Compression | None
    """How the checkpoint keeps linears, where it does not keep them as floats."""
    hf: dict[str, Any]
    """config.json as it is."""


def read_config(model_dir: Path) -> ModelConfig:
    """Read a model directory's configuration, refusing by name what it asks for and is not
    supported.
    """
    hf = _json(model_dir / "config.json")
    if hf is None:
        raise ModelError(
            f"{model_dir} has no config.json.", remedy="Name a directory that holds a whole model."
        )
    generation = _json(model_dir / "generation_config.json") or {}
    config = HfConfig(hf)
    architecture = _architecture(hf)
    config.refuse(
        is_encoder_decoder=False,
        add_cross_attention=False,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    )
    spec = _checked(family_of(architecture).spec(config))
    return ModelConfig(
        spec=spec,
        architecture=architecture,
        dtype=_dtype(config),
        eos_token_ids=_end_token_ids(generation, hf, spec.vocab_size),
        sampling_defaults=_sampling_defaults(generation),
        compression=read_compression(hf.get("quantization_config")),
        hf=hf,
    )


def family_of(architecture: str) -> Family:
    """The module that knows an architecture, by the name config.json gives it."""
    if architecture not in ARCHITECTURES:
        nearest = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.0)[0]
        raise ModelError(
            f"The architecture {architecture} is not supported; the nearest that is, is {nearest}.",
            remedy=f"Supported are {', '.join(sorted(ARCHITECTURES))}.",
        )
    module = importlib.import_module(f"penstock.models.families.{ARCHITECTURES[architecture]}")
    return cast(Family, module)


def _architecture(hf: dict[str, Any]) -> str:
    named = hf.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise ModelError('config.json does not name an architecture ("architectures": [...]).')
    return named[0]


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None when there is no such file."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold a JSON object, not a {type(found).__name__}.")
    return found


def _checked(spec: DecoderSpec) -> DecoderSpec:
    if spec.num_heads % spec.num_kv_heads:
        raise ModelError(
            f"config.json: {spec.num_heads} attention heads cannot share "
            f"{spec.num_kv_heads} key-value heads evenly."
        )
    if isinstance(spec.mlp, Experts) and spec.mlp.top_k > spec.mlp.count:
        raise ModelError(
            f"config.json: num_experts_per_tok is {spec.mlp.top_k}, and there are "
            f"{spec.mlp.count} experts."
        )
    return spec


def _dtype(config: HfConfig) -> torch.dtype:
    name = str(config.value("dtype", config.value("torch_dtype", "float32")))
    if name not in _DTYPES:
        raise ModelError(
            f"config.json: weights of type {name!r} are not supported.",
            remedy=f"Supported are {', '.join(_DTYPES)}.",
        )
    return _DTYPES[name]


def _end_token_ids(generation: dict[str, Any], hf: dict[str, Any], vocab_size: int) -> list[int]:
    """One id, a list of them, or none; in either file. Those that the model cannot draw are left
    out: -1 stands for none in some files, and others name tokens that were never trained.
    """
    found = generation.get("eos_token_id")
    if found is None:
        found = hf.get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(token_id) is int for token_id in ids):
        raise ModelError(f"The configuration's token ids must be integers, not {found!r}.")
    return [token_id for token_id in ids if 0 <= token_id < vocab_size]


def _sampling_defaults(generation: dict[str, Any]) -> dict[str, Any]:
    if generation.get("do_sample") is False:
        return {}
    named = [name for name in SAMPLING_OPTIONS if generation.get(name) is not None]
    for name in named:
        finite(f"generation_config.json: {name}", generation[name])
    advice = {name: generation[name] for name in named}
    try:
        SamplingParams(**advice)
    except InvalidRequest as error:
        raise ModelError(
            f"generation_config.json recommends what cannot be: {error.message}",
            remedy="Correct it there, or take it out.",
        ) from None
    return advice
