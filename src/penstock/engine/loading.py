"""From settings to an engine that can step: find, fit, load."""

from dataclasses import dataclass
from pathlib import Path

import torch

from penstock.engine.engine import Engine
from penstock.engine.grammar_compiler import GrammarLimits
from penstock.engine.grammars import Grammars
from penstock.engine.hardware import find_hardware
from penstock.engine.runner import Runner
from penstock.engine.settings import EngineSettings, ModelFacts, OnProgress, Resolved, resolve
from penstock.kernels.backends import choose_ops
from penstock.kernels.ops import Ops
from penstock.models.kv_cache import KVCache
from penstock.models.loading import ModelConfig, load_decoder, read_config
from penstock.scheduling.blocks import Blocks
from penstock.scheduling.scheduler import Scheduler
from penstock.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that is decided before the first byte of weights is read."""

    model_dir: Path
    config: ModelConfig
    resolved: Resolved
    settings: EngineSettings
    ops: Ops
    notes: list[str]

    @property
    def end_token_ids(self) -> frozenset[int]:
        return frozenset(self.config.eos_token_ids)


def prepare(settings: EngineSettings, model_dir: Path, name: str) -> Prepared:
    """Read the model's configuration, look at the machine, and complete the settings."""
    config = read_config(model_dir)
    hardware = find_hardware(settings.device)
    ops, notes = choose_ops(torch.device(hardware.device))
    resolved = resolve(settings, hardware, _facts(name, config, model_dir))
    return Prepared(
        model_dir=model_dir,
        config=config,
        resolved=resolved,
        settings=settings,
        ops=ops,
        notes=notes,
    )


def load_engine(
    prepared: Prepared,
    on_progress: OnProgress | None = None,
    *,
    tokenizer: Tokenizer | None = None,
) -> Engine:
    """Read the weights and make the KV cache. `on_progress(bytes done, bytes in all)`.

    `tokenizer` is the model's, if the caller has read it already; grammars need one.
    """
    grammars = _grammars(prepared, tokenizer)
    resolved, spec = prepared.resolved, prepared.config.spec
    device, dtype = torch.device(resolved.device), getattr(torch, resolved.weights)
    decoder = load_decoder(
        prepared.model_dir,
        prepared.config,
        dtype=dtype,
        device=device,
        ops=prepared.ops,
        on_progress=on_progress,
    )
    cache = KVCache(spec, resolved.num_blocks, resolved.block_size, dtype, device)
    blocks = Blocks(
        resolved.num_blocks, resolved.block_size, prefix_caching=resolved.prefix_caching
    )
    scheduler = Scheduler(
        blocks, token_budget=resolved.token_budget, max_num_seqs=resolved.max_num_seqs
    )
    return Engine(
        scheduler=scheduler,
        runner=Runner(decoder, cache, device),
        grammars=grammars,
        max_model_len=resolved.max_model_len,
        end_token_ids=prepared.end_token_ids,
        seed=resolved.seed,
    )


def _grammars(prepared: Prepared, tokenizer: Tokenizer | None) -> Grammars:
    settings = prepared.settings
    return Grammars(
        prepared.model_dir,
        vocab_size=prepared.resolved.vocab_size,
        end_token_ids=prepared.end_token_ids,
        limits=GrammarLimits(
            max_chars=settings.max_grammar_chars,
            max_depth=settings.max_grammar_depth,
            timeout_s=settings.grammar_timeout_s,
            memory_mib=settings.grammar_memory_mib,
        ),
        num_kept=settings.kept_grammars,
        tokenizer=tokenizer,
    )


def _facts(name: str, config: ModelConfig, model_dir: Path) -> ModelFacts:
    spec = config.spec
    weight_bytes = sum(path.stat().st_size for path in model_dir.glob("*.safetensors"))
    one_token = KVCache.block_bytes(spec, 1, torch.float32) // 4
    return ModelFacts(
        name=name,
        architecture=config.architecture,
        num_parameters=weight_bytes // config.dtype.itemsize,
        checkpoint_dtype=str(config.dtype).removeprefix("torch."),
        max_positions=spec.max_positions,
        vocab_size=spec.vocab_size,
        kv_elements_per_token=one_token,
    )
