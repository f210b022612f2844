"""What every part of the check is given, and where it puts what it finds."""

from dataclasses import dataclass, field
from typing import Any

import torch

SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3-8B": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "dtype": "bfloat16",
    },
    "Qwen2.5-0.5B": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
}
"""The models' own config.json, as far as a decoder depends on it."""
_TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """On what, and how large, everything is."""

    device: str = "cuda"
    product: int = 8192
    """Rows and columns of matrices."""
    copied_bytes: int = 2**32
    heads: tuple[int, int, int] = (32, 8, 128)
    """Of queries, of keys and values, and their size."""
    mlp: tuple[int, int] = (4096, 14336)
    rows: tuple[int, ...] = (1, 16, 64, 512, 4096)
    num_singles: int = 64
    """Sequences of one token each."""
    context_len: int = 4096
    """Theirs, and that of a prompt."""
    repeats: int = 20
    stride: int = 1
    """Of so many conformance cases one is computed."""
    families: tuple[str, ...] = ("qwen3", "mixtral")
    engine: dict[str, Any] = field(
        default_factory=lambda: {"device": "cuda", "max_model_len": 6144, "token_budget": 4096}
    )
    least_run_s: float = 60.0
    """An engine that may take longer is not measured in less."""
    shapes: dict[str, dict[str, Any]] = field(default_factory=lambda: SHAPES)

    @property
    def is_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def capability(self) -> tuple[int, int]:
        """A rehearsal has that of the oldest GPU."""
        return torch.cuda.get_device_capability() if self.is_gpu else (8, 0)


REHEARSAL = Scale(
    device="cpu",
    product=32,
    copied_bytes=1024,
    heads=(4, 2, 16),
    mlp=(32, 48),
    rows=(1, 20),
    num_singles=2,
    context_len=32,
    repeats=2,
    stride=60,
    families=("qwen3",),
    engine={"device": "cpu", "kv_cache_gib": 0.01, "token_budget": 48, "max_num_seqs": 8},
    least_run_s=0.0,
    shapes={name: shape | _TINY for name, shape in SHAPES.items()},
)
"""The same ways without a GPU: its figures mean nothing, but that there are some."""


@dataclass
class Part:
    """A part that is running. What it has found stands, even if it is interrupted."""

    deadline: float
    """By `time.monotonic`; a part that is much later is interrupted."""
    scale: Scale
    report: dict[str, Any]
    """What parts before it found, by their names."""
    figures: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    """Lines of the table."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it must be."""
