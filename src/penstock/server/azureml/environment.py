"""The environment variables of Azure's model images, made into our settings.

Values are never logged or shown, only the names of variables: some hold secrets.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec

from penstock.engine.front_settings import FrontSettings
from penstock.engine.settings import EngineSettings
from penstock.server.azureml.model_layout import MountedModel, mounted_model
from penstock.server.settings import AZUREML_TASKS, ServerSettings
from penstock.vocabulary.errors import SettingsError

HOST, PORT = "0.0.0.0", 5001

ALIASES = {
    "DTYPE": "weights",
    "ENABLE_PREFIX_CACHING": "prefix_caching",
    "KV_CACHE_DTYPE": "kv_dtype",
    "MAX_MODEL_LEN": "max_model_len",
    "MAX_NUM_BATCHED_TOKENS": "token_budget",
    "MAX_NUM_SEQS": "max_num_seqs",
    "MAX_TOTAL_TOKENS": "max_model_len",
    "MODEL_NAME": "served_model_name",
    "MODEL_PROVIDER": "model_provider",
    "NUM_REPLICAS": "replicas",
    "SEED": "seed",
    "SERVED_MODEL_NAME": "served_model_name",
    "TASK_TYPE": "azureml_task",
    "VLLM_CPU_KVCACHE_SPACE": "kv_cache_gib",
}
"""Variables of Azure's images and flags of vLLM, and what they are called here."""

NEEDLESS = {
    "BLOCK_SIZE": "blocks have one size",
    "DEPLOYMENT_NAME": "it is Azure's name for this deployment",
    "DISABLE_LOG_REQUESTS": "requests are not logged",
    "ENFORCE_EAGER": "nothing is captured ahead of time",
    "ENGINE_NAME": "Penstock is the engine",
    "GPU_MEMORY_UTILIZATION": "memory is fitted to the machine",
    "IS_COMMON_API_ENABLED": "the model inference API is always there",
    "SWAP_SPACE": "preempted sequences are computed again",
    "TRUST_REMOTE_CODE": "no code of a model's is ever run",
    "WORKER_COUNT": "one asynchronous front answers all",
}
"""Variables that may be left as they are without effect, and why."""

UNSUPPORTED = {
    "CHAT_TEMPLATE": (),
    "ENABLE_LORA": ("false", "0"),
    "LORA_MODULES": (),
    "PIPELINE_PARALLEL_SIZE": ("1",),
    "QUANTIZATION": ("none",),
    "SPECULATIVE_CONFIG": (),
    "TENSOR_PARALLEL": ("1",),
    "TENSOR_PARALLEL_SIZE": ("1",),
}
"""Variables that would change what is served, with the values that ask for nothing."""

_SAFETY = ("CONTENT_SAFETY_ENDPOINT", "CONTENT_SAFETY_KEY", "AACS_INFERENCE_URI")
_SYNONYMS = {
    "weights": {"half": "float16", "float": "float32"},
    "replicas": {"-1": "1"},
}
"""What vLLM and Azure's images call values of our settings; -1 is their word for a default."""

_SETTINGS = (EngineSettings, FrontSettings, ServerSettings)


@dataclass(frozen=True)
class Deployment:
    """What the environment asks for. `notes` tell what has no effect here."""

    engine: EngineSettings
    front: FrontSettings
    server: ServerSettings
    log_level: str
    notes: list[str] = field(default_factory=list)


def deployment_from(environment: Mapping[str, str]) -> Deployment:
    """Settings for the model that is mounted. Raises `SettingsError` or `ModelError`."""
    _check_supported(environment)
    values = _given(environment)
    model = _model(environment, values)
    values.setdefault("azureml_task", model.task)
    _check_task(values["azureml_task"])
    if not values.get("content_safety"):
        _check_no_safety_expected(environment)
    defaults = {
        "host": HOST,
        "port": PORT,
        "dialects": ("azureml",),
        "model": str(model.directory),
        "model_provider": model.provider,
        "served_model_name": model.name or None,
    }
    values = {**defaults, **values}
    return Deployment(
        engine=_made(EngineSettings, values),
        front=_made(FrontSettings, values),
        server=_made(ServerSettings, values),
        log_level=_log_level(environment.get("AZUREML_LOG_LEVEL", "warning")),
        notes=[
            f"{name} has no effect: {NEEDLESS[name]}." for name in NEEDLESS if name in environment
        ],
    )


def _log_level(name: str) -> str:
    if name.upper() not in logging.getLevelNamesMapping():
        raise SettingsError(
            f"AZUREML_LOG_LEVEL is {name!r}.", remedy="Try debug, info, warning or error."
        )
    return name.upper()


def _check_supported(environment: Mapping[str, str]) -> None:
    for name, harmless in UNSUPPORTED.items():
        value = environment.get(name, environment.get(f"AML_{name}", "")).strip().lower()
        if value and value not in harmless:
            raise SettingsError(
                f"{name} is set, and Penstock cannot do that yet.", remedy="Remove the variable."
            )


def _given(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings by our names, from all variables that stand for one. They must agree."""
    settings = [field_ for kind in _SETTINGS for field_ in dataclasses.fields(kind)]
    types = {name: kind for each in _SETTINGS for name, kind in get_type_hints(each).items()}
    sources = {f"AML_{name}": setting for name, setting in ALIASES.items()} | ALIASES
    sources |= {_own_variable(field_): field_.name for field_ in settings}
    values: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for variable, name in sources.items():
        text = environment.get(variable)
        if not text:
            continue
        text = _SYNONYMS.get(name, {}).get(text.lower(), text)
        value = _parsed(variable, text, types[name])
        if name in values and values[name] != value:
            raise SettingsError(f"{said_by[name]} and {variable} say different things.")
        values[name], said_by[name] = value, variable
    return values


def _own_variable(setting: dataclasses.Field[Any]) -> str:
    """PENSTOCK_MAX_WAITING for --max-waiting."""
    flag = setting.metadata.get("flag", setting.name)
    return "PENSTOCK_" + str(flag).removeprefix("--").replace("-", "_").upper()


def _parsed(name: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(text.replace(",", " ").split())
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{name}: {error}.") from None


def _model(environment: Mapping[str, str], values: Mapping[str, Any]) -> MountedModel:
    if "model" in values:
        return MountedModel(Path(values["model"]))
    root = environment.get("AZUREML_MODEL_DIR")
    if not root:
        raise SettingsError(
            "AZUREML_MODEL_DIR is not set.",
            remedy="Azure sets it where a model is mounted; elsewhere name the model's folder.",
        )
    return mounted_model(Path(root), environment.get("MODEL_SUB_PATH", ""))


def _check_task(task: str) -> None:
    if not task:
        raise SettingsError(
            "The model's task is not known: there is no MLmodel that tells it.",
            remedy=f"Set TASK_TYPE to {' or '.join(AZUREML_TASKS)}.",
        )


def _check_no_safety_expected(environment: Mapping[str, str]) -> None:
    if set_ := [name for name in _SAFETY if environment.get(name)]:
        raise SettingsError(
            f"{set_[0]} is set, but nothing would check content.",
            remedy="Set PENSTOCK_CONTENT_SAFETY to module:function, or remove the variable.",
        )


def _made(kind: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    names = {field_.name for field_ in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})
