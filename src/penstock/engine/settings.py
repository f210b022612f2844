"""What a user may ask of the engine, what there is to compute with, and what becomes of both
(`engine/resolving.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from penstock.vocabulary.errors import SettingsError
from penstock.vocabulary.sampling_params import nearest

OnProgress = Callable[[int, int], None]
"""Told (bytes done, bytes in all) while weights are read."""


def option(default: Any, help_: str, *, secret_in: str | None = None) -> Any:
    """A field that becomes a command-line flag with this help. A secret is never shown, and may
    come in an environment variable.
    """
    metadata = {"help": help_, "env": secret_in}
    return field(default=default, repr=secret_in is None, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model, and in what form."""

    model: str | None = option(
        None, "Model directory or Hugging Face name. Without one, the small embedded model."
    )
    revision: str | None = option(None, "Branch, tag or commit, when the model is a name.")
    weights: str = option(
        "auto",
        "How weights are kept: auto, float32, bfloat16, int8, int4; on a GPU also float16, fp8.",
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.")


@dataclass(frozen=True, kw_only=True)
class EngineSettings(ModelSettings):
    """Settings as given. None means: choose for me."""

    kv_dtype: str = option(
        "auto",
        "How keys and values are kept: auto, float32, bfloat16, int8; on a GPU also float16, fp8.",
    )
    max_model_len: int | None = option(
        None, "Most tokens of prompt and output together. Default: what the model was made for."
    )
    token_budget: int | None = option(
        None, "Most tokens to compute in one step. Larger: more throughput; smaller: less delay."
    )
    max_num_seqs: int | None = option(None, "Most sequences to compute side by side.")
    kv_cache_gib: float | None = option(
        None, "Memory for keys and values, in GiB. Default: fitted to the machine."
    )
    prefix_caching: bool = option(True, "Keep computed prompts for others that begin alike.")
    packed_cache: bool | None = option(
        None,
        "Keep packed weights on disk for the next start (`penstock cache` lists them). Default: "
        "where packing takes longer than a moment.",
    )
    packed_cache_gib: float = option(
        50.0,
        "Most that the packed cache may take, in GiB; what was used least recently goes first.",
    )
    verify: bool = option(
        True,
        "Compare the checksums of packed weights before serving them. Without, only their files' "
        "sizes and headers are checked.",
    )
    attention: str = option(
        "auto",
        "What computes attention: auto, kernels of our own; or, on a GPU, flashinfer, for steps "
        "that read prompts.",
    )
    seed: int | None = option(
        None, "Makes requests that bring no seed of their own repeatable, too."
    )
    deterministic: bool = option(
        False,
        "Compute the same bits whatever else is computed at the time. That slows a GPU down; "
        "kernels for CPUs do it anyway.",
    )
    watermark_key: str | None = option(
        None,
        "Secret that watermarks texts. Rather in $PENSTOCK_WATERMARK_KEY: others see flags.",
        secret_in="PENSTOCK_WATERMARK_KEY",
    )
    max_grammar_chars: int = option(
        65_536, "Longest grammar or JSON schema that a request may bring, in characters."
    )
    max_grammar_depth: int = option(100, "Deepest nesting of brackets in a JSON schema.")
    grammar_timeout_s: float = option(
        5.0, "Refuse a grammar that takes more seconds of processor time than this to compile."
    )
    grammar_memory_mib: int = option(
        512, "Refuse a grammar that takes more memory than this to compile, in MiB."
    )
    kept_grammars: int = option(
        256, "How many compiled grammars to keep for requests that bring the same."
    )


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What there is to compute with."""

    device: str
    device_name: str
    free_bytes: int
    has_kernels: bool
    """Kernels of our own compute here, not only the torch reference."""
    has_fp8: bool = False
    """Floats of eight bits are multiplied here."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What must be known of a model to fit it into memory."""

    name: str
    architecture: str
    num_parameters: int
    checkpoint_dtype: str
    checkpoint_weights: str
    """How the checkpoint keeps linears: in its dtype, or as int8 or int4."""
    packed_as: str | None
    """The weights that a snapshot holds; None for a checkpoint."""
    max_positions: int
    vocab_size: int
    kv_block_bytes: Mapping[str, int]
    """What a block of the cache takes, for every type that keys and values can be kept in."""
    head_dim: int
    biases_keys: bool
    """Attention adds something to the score of each key: ALiBi does."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Settings with nothing left open, and why each is what it is."""

    model: str
    architecture: str
    device: str
    device_name: str
    weights: str
    dtype: str
    """The type of activations."""
    kv_dtype: str
    attention: str
    """own or flashinfer."""
    deterministic: bool
    """Results are the same bits whatever else is computed."""
    max_model_len: int
    token_budget: int
    max_num_seqs: int
    block_size: int
    num_blocks: int
    block_bytes: int
    prefix_caching: bool
    packed_cache: bool
    """Whether weights come from, and go to, the packed cache."""
    packed_cache_bytes: int
    verify: bool
    seed: int | None
    vocab_size: int
    reasons: dict[str, str]

    @property
    def kv_tokens(self) -> int:
        return self.num_blocks * self.block_size

    @property
    def kv_bytes(self) -> int:
        return self.num_blocks * self.block_bytes


WEIGHT_BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "float16": 2.0,
    "int8": 1.0,
    "fp8": 1.0,
    "int4": 0.6,
}
"""Memory for each parameter, scales included."""


def settings_from(values: dict[str, Any]) -> EngineSettings:
    """Settings by name. Raises `SettingsError` for a name nobody knows, with the nearest one."""
    known = [each.name for each in fields(EngineSettings)]
    for name in values:
        if name not in known:
            raise SettingsError(f"There is no setting {name!r}.", remedy=nearest(name, known))
    return EngineSettings(**values)
