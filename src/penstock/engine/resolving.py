"""What becomes of settings on a given machine with a given model.

`resolve` is a pure function: no file is read and nothing is allocated in it. Every choice it makes
comes with its reason, and `penstock serve` prints both.
"""

import math

from penstock.engine.cache_size import (
    BLOCK_SIZE,
    fitting_blocks,
    fitting_len,
    wanted_blocks,
)
from penstock.engine.settings import (
    WEIGHT_BYTES,
    EngineSettings,
    Hardware,
    ModelFacts,
    Resolved,
)
from penstock.kernels.paged_attention.contract import FLASHINFER_DTYPES, FLASHINFER_HEAD_DIMS
from penstock.vocabulary.errors import SettingsError

_GIB = 2**30
_WORTH_ROUNDING = 50_000_000
"""Parameters from which on int8 is what `auto` chooses: smaller models are fast anyway."""
_WORTH_CACHING = 100_000_000
"""Parameters from which on packing takes about a second or more."""


def resolve(settings: EngineSettings, hardware: Hardware, model: ModelFacts) -> Resolved:
    """Complete the settings. Raises `SettingsError` for what cannot go together."""
    _check_values(settings)
    reasons: dict[str, str] = {}
    weights = _weights(settings, hardware, model, reasons)
    dtype = _dtype(hardware, weights)
    kv_dtype = _kv_dtype(settings, model, weights, dtype, reasons)
    max_model_len = _max_model_len(settings, model, reasons)
    max_num_seqs, token_budget = _step_limits(settings, hardware, reasons)
    block_bytes = model.kv_block_bytes[kv_dtype]
    free = hardware.free_bytes - int(model.num_parameters * WEIGHT_BYTES[weights])
    wanted = wanted_blocks(max_model_len, max_num_seqs) if hardware.device == "cpu" else None
    num_blocks = _num_blocks(settings, free, block_bytes, wanted, reasons)
    max_model_len = fitting_len(settings.max_model_len, max_model_len, num_blocks, reasons)
    return Resolved(
        model=model.name,
        architecture=model.architecture,
        device=hardware.device,
        device_name=hardware.device_name,
        weights=weights,
        dtype=dtype,
        kv_dtype=kv_dtype,
        attention=_attention(settings, hardware, model, (dtype, kv_dtype), reasons),
        deterministic=_deterministic(settings, hardware, reasons),
        max_model_len=max_model_len,
        token_budget=token_budget,
        max_num_seqs=max_num_seqs,
        block_size=BLOCK_SIZE,
        num_blocks=num_blocks,
        block_bytes=block_bytes,
        prefix_caching=settings.prefix_caching,
        packed_cache=_packed_cache(settings, hardware, model, weights, reasons),
        packed_cache_bytes=int(settings.packed_cache_gib * _GIB),
        verify=settings.verify,
        seed=settings.seed,
        vocab_size=model.vocab_size,
        reasons=reasons,
    )


def _check_values(settings: EngineSettings) -> None:
    if settings.seed is not None and not -(2**63) <= settings.seed < 2**63:
        raise SettingsError(f"seed {settings.seed} does not fit into 64 bits.")
    if settings.watermark_key == "":
        raise SettingsError("The watermark key is empty.", remedy="Leave it out to mark no text.")
    for name in (
        "max_grammar_chars",
        "max_grammar_depth",
        "grammar_timeout_s",
        "grammar_memory_mib",
        "kept_grammars",
    ):
        if not 0 < getattr(settings, name) < math.inf:
            raise SettingsError(f"{name} must be above 0, not {getattr(settings, name)}.")
    for name in ("kv_cache_gib", "packed_cache_gib"):
        if not 0 <= (getattr(settings, name) or 0) < math.inf:
            raise SettingsError(f"{name} must be a size, not {getattr(settings, name)}.")


def _weights(
    settings: EngineSettings, hardware: Hardware, model: ModelFacts, reasons: dict[str, str]
) -> str:
    if model.packed_as is not None:
        if settings.weights not in ("auto", model.packed_as):
            raise SettingsError(
                f"The snapshot holds {model.packed_as} weights, not {settings.weights}.",
                remedy="Leave --weights out, or make another snapshot of the original model.",
            )
        reasons["weights"] = "as the snapshot holds them"
        return model.packed_as
    on_cpu = hardware.device == "cpu"
    known = _known_weights(hardware)
    if settings.weights in known:
        reasons["weights"] = "as asked"
        return settings.weights
    if settings.weights != "auto":
        raise SettingsError(
            f"Unknown weights {settings.weights!r} for {hardware.device}.",
            remedy=f"Choose one of auto, {', '.join(known)}.",
        )
    if model.checkpoint_weights in ("int8", "int4"):
        reasons["weights"] = "as the checkpoint keeps them"
        return model.checkpoint_weights
    if not on_cpu:
        halves = model.checkpoint_dtype in ("bfloat16", "float16")
        reasons["weights"] = (
            "the checkpoint's own" if halves else "half the size of the checkpoint's"
        )
        return model.checkpoint_dtype if halves else "bfloat16"
    exact = "bfloat16" if model.checkpoint_dtype == "bfloat16" else "float32"
    if hardware.has_kernels and model.num_parameters >= _WORTH_ROUNDING:
        reasons["weights"] = f"the fastest that keeps quality; exact: --weights {exact}"
        return "int8"
    if model.num_parameters * 4 > hardware.free_bytes // 2:
        reasons["weights"] = "float32 would take more than half of the free memory"
        return "bfloat16"
    reasons["weights"] = "exact, and fast enough for a model of this size"
    return "float32"


def _known_weights(hardware: Hardware) -> list[str]:
    known = set(WEIGHT_BYTES)
    if hardware.device == "cpu":
        known.discard("float16")
    if not hardware.has_fp8:
        known.discard("fp8")
    return [name for name in WEIGHT_BYTES if name in known]


def _dtype(hardware: Hardware, weights: str) -> str:
    if hardware.device == "cpu":
        return "float32"
    return weights if weights in ("float32", "float16") else "bfloat16"


def _kv_dtype(
    settings: EngineSettings, model: ModelFacts, weights: str, dtype: str, reasons: dict[str, str]
) -> str:
    if settings.kv_dtype in model.kv_block_bytes:
        reasons["kv_dtype"] = "as asked"
        return settings.kv_dtype
    if settings.kv_dtype != "auto":
        raise SettingsError(
            f"Unknown kv_dtype {settings.kv_dtype!r}.",
            remedy=f"Choose one of auto, {', '.join(model.kv_block_bytes)}.",
        )
    if dtype != "float32" or weights == "float32":
        reasons["kv_dtype"] = "as activations"
        return dtype
    reasons["kv_dtype"] = "half the memory of float32; exact: --kv-dtype float32"
    return "bfloat16"


def _attention(
    settings: EngineSettings,
    hardware: Hardware,
    model: ModelFacts,
    dtypes: tuple[str, str],
    reasons: dict[str, str],
) -> str:
    if settings.attention == "auto":
        reasons["attention"] = "the kernels that compute all else"
        return "own"
    if settings.attention != "flashinfer":
        raise SettingsError(
            f"Unknown attention {settings.attention!r}.", remedy="Choose auto or flashinfer."
        )
    lacks = _lacking_for_flashinfer(settings, hardware, model, *dtypes)
    if lacks is not None:
        raise SettingsError(
            f"FlashInfer cannot compute this: {lacks}.", remedy="Use --attention auto."
        )
    reasons["attention"] = "as asked; steps of single tokens by kernels of our own"
    return "flashinfer"


def _lacking_for_flashinfer(
    settings: EngineSettings, hardware: Hardware, model: ModelFacts, dtype: str, kv_dtype: str
) -> str | None:
    """What keeps FlashInfer from computing a model's attention; None for nothing."""
    if hardware.device == "cpu" or not hardware.has_kernels:
        return f"it wants a GPU and our kernels in Triton beside it, and this is {hardware.device}"
    if settings.deterministic:
        return "its sums are ordered by what is in a step, and deterministic was asked for"
    if model.biases_keys:
        return f"{model.architecture} adds a bias to keys (ALiBi)"
    if model.head_dim not in FLASHINFER_HEAD_DIMS:
        sizes = ", ".join(map(str, FLASHINFER_HEAD_DIMS))
        return f"heads of {model.head_dim}, where it takes {sizes}"
    if dtype not in FLASHINFER_DTYPES or kv_dtype != dtype:
        either = ", or both in ".join(FLASHINFER_DTYPES)
        return f"activations in {dtype}, keys and values in {kv_dtype}: it takes both in {either}"
    return None


def _deterministic(settings: EngineSettings, hardware: Hardware, reasons: dict[str, str]) -> bool:
    if hardware.device == "cpu" and hardware.has_kernels:
        reasons["deterministic"] = "kernels for CPUs always compute the same bits"
        return True
    if settings.deterministic and not hardware.has_kernels:
        raise SettingsError(
            "deterministic wants kernels of our own: the torch reference may round a request "
            "differently when others are computed beside it.",
            remedy="`penstock doctor` and the notes of a start say which kernels are missing here.",
        )
    reasons["deterministic"] = "as asked" if settings.deterministic else "the same within rounding"
    return settings.deterministic


def _packed_cache(
    settings: EngineSettings,
    hardware: Hardware,
    model: ModelFacts,
    weights: str,
    reasons: dict[str, str],
) -> bool:
    if model.packed_as is not None:
        reasons["packed_cache"] = "a snapshot is packed already"
        return False
    if settings.packed_cache is not None:
        reasons["packed_cache"] = "as asked"
        return settings.packed_cache
    packs = hardware.has_kernels or weights in ("int8", "int4")
    if hardware.device == "cpu" and packs and model.num_parameters >= _WORTH_CACHING:
        reasons["packed_cache"] = "weights are packed once; the next start maps them"
        return True
    reasons["packed_cache"] = "packing takes but a moment"
    return False


def _max_model_len(settings: EngineSettings, model: ModelFacts, reasons: dict[str, str]) -> int:
    asked = settings.max_model_len
    if asked is None:
        reasons["max_model_len"] = "what the model was made for"
        return model.max_positions
    if not 2 <= asked <= model.max_positions:
        raise SettingsError(
            f"max_model_len {asked} is not within 2 and the model's {model.max_positions}.",
            remedy="Leave it out to use all that the model can do.",
        )
    reasons["max_model_len"] = "as asked"
    return asked


def _step_limits(
    settings: EngineSettings, hardware: Hardware, reasons: dict[str, str]
) -> tuple[int, int]:
    """(max_num_seqs, token_budget): the budget must leave at least one token for a prompt."""
    default_budget = 512 if hardware.device == "cpu" else 2048
    budget = default_budget if settings.token_budget is None else settings.token_budget
    reasons["token_budget"] = (
        "as asked" if settings.token_budget else f"usual on {hardware.device.split(':')[0]}"
    )
    num_seqs = settings.max_num_seqs
    if num_seqs is None:
        num_seqs = min(256, max(1, budget // 2))
    reasons["max_num_seqs"] = "as asked" if settings.max_num_seqs else "at most half of the budget"
    if budget < 2 or num_seqs < 1:
        raise SettingsError(
            f"token_budget ({budget}) must be at least 2 and max_num_seqs ({num_seqs}) at least 1."
        )
    if num_seqs >= budget:
        if settings.max_num_seqs and settings.token_budget:
            raise SettingsError(
                f"max_num_seqs ({num_seqs}) must be less than token_budget ({budget}).",
                remedy="Every running sequence takes one token a step; prompts need the rest.",
            )
        budget = 2 * num_seqs
        reasons["token_budget"] = "twice max_num_seqs, so that prompts find room beside it"
    return num_seqs, budget


def _num_blocks(
    settings: EngineSettings,
    free: int,
    block_bytes: int,
    wanted: int | None,
    reasons: dict[str, str],
) -> int:
    if settings.kv_cache_gib is not None:
        reasons["kv_cache"] = "as asked"
        return int(settings.kv_cache_gib * _GIB) // block_bytes
    return fitting_blocks(free, block_bytes, wanted, reasons)
