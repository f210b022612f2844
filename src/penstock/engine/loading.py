"""From settings to an engine that can step: find, fit, load."""

from dataclasses import dataclass
from pathlib import Path

import torch

from penstock.engine.cache_size import BLOCK_SIZE
from penstock.engine.cost import cost_model
from penstock.engine.engine import Engine
from penstock.engine.grammar_compiler import GrammarLimits
from penstock.engine.grammars import Grammars
from penstock.engine.graphs import Graphs, powers_of_two
from penstock.engine.hardware import find_device, find_hardware, keep_to, num_threads
from penstock.engine.host import give_memory_back
from penstock.engine.memory import fitted
from penstock.engine.placement import WHOLE, Share
from penstock.engine.resolving import resolve
from penstock.engine.runner import Runner
from penstock.engine.settings import (
    WEIGHT_BYTES,
    EngineSettings,
    ModelFacts,
    OnProgress,
    Resolved,
)
from penstock.engine.transfers import transfers_for
from penstock.engine.weights import WeightsPlan
from penstock.kernels.backends import choose_ops, with_flashinfer
from penstock.kernels.ops import REFERENCE, Ops
from penstock.models.checkpoint import weight_files
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache, block_bytes
from penstock.models.loading import ModelConfig, read_config
from penstock.models.manifest import is_snapshot
from penstock.models.snapshot import Snapshot
from penstock.models.spec import Alibi
from penstock.scheduling.blocks import Blocks
from penstock.scheduling.scheduler import Scheduler
from penstock.text.tokenizer import Tokenizer
from penstock.text.tokenizer_files import eos_token_id
from penstock.text.watermark import Greens
from penstock.vocabulary.errors import SettingsError

LARGEST_GRAPH = 256
"""Sequences of one token each in a recorded step."""
LARGEST_ON_CPU = 64


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that is decided before the first byte of weights is read."""

    config: ModelConfig
    resolved: Resolved
    settings: EngineSettings
    ops: Ops
    weights: WeightsPlan
    num_threads: int
    notes: list[str]
    end_token_ids: frozenset[int]
    """What ends a text, as the model's configuration or its tokenizer's says."""


def prepare(settings: EngineSettings, model_dir: Path, name: str, share: Share = WHOLE) -> Prepared:
    """Read the model's configuration, look at the machine, and complete the settings."""
    snapshot = Snapshot(model_dir) if is_snapshot(model_dir) else None
    config = read_config(model_dir)
    device, threads = find_device(settings.device, share), num_threads(share)
    if device != "cpu":
        torch.cuda.set_device(device)  # kernels in Triton go where the current device is
    elif share != WHOLE:
        keep_to(share)
    ops, notes = choose_ops(torch.device(device), threads, deterministic=settings.deterministic)
    has_kernels = ops is not REFERENCE
    # Two pools of threads on the same cores wait for each other: the kernels' own one computes.
    torch.set_num_threads(1 if has_kernels else threads)
    has_fp8 = device != "cpu" and "fp8" in ops.kv_dtypes
    hardware = find_hardware(device, has_kernels=has_kernels, has_fp8=has_fp8, share=share)
    facts = _facts(name, config, model_dir, snapshot, ops)
    resolved = resolve(settings, hardware, facts)
    ops = _with_attention(ops, resolved)
    weights = WeightsPlan(
        model_dir=model_dir,
        config=config,
        resolved=resolved,
        num_parameters=facts.num_parameters,
        ops=ops,
        snapshot=snapshot,
    )
    return Prepared(
        config=config,
        resolved=resolved,
        settings=settings,
        ops=ops,
        weights=weights,
        num_threads=threads,
        notes=notes,
        end_token_ids=_end_token_ids(config, model_dir),
    )


def _end_token_ids(config: ModelConfig, model_dir: Path) -> frozenset[int]:
    """Both, since models tuned to chat often name the end of a turn in the tokenizer's alone."""
    ids = frozenset(config.eos_token_ids)
    named = eos_token_id(model_dir)
    return ids if named is None or named >= config.spec.vocab_size else ids | {named}


def _with_attention(ops: Ops, resolved: Resolved) -> Ops:
    """The operations with the attention that was chosen."""
    if resolved.attention == "own":
        return ops
    try:
        return with_flashinfer(ops, getattr(torch, resolved.dtype))
    except ImportError as error:
        raise SettingsError(
            f"FlashInfer cannot be imported: {error}.",
            remedy="pip install 'penstock[flashinfer]', or use --attention auto.",
        ) from error


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
    spec, ops = prepared.config.spec, prepared.ops
    decoder = Decoder(
        spec,
        prepared.weights.load(on_progress),
        ops,
        dtype=getattr(torch, prepared.resolved.dtype),
        device=torch.device(prepared.resolved.device),
    )
    key = prepared.settings.watermark_key
    resolved = fitted(prepared.resolved, prepared.settings, decoder)
    blocks = Blocks(
        resolved.num_blocks, resolved.block_size, prefix_caching=resolved.prefix_caching
    )
    scheduler = Scheduler(
        blocks, token_budget=resolved.token_budget, max_num_seqs=resolved.max_num_seqs
    )
    engine = Engine(
        resolved=resolved,
        scheduler=scheduler,
        runner=_runner(decoder, resolved, None if key is None else Greens(key)),
        grammars=grammars,
        cost=cost_model(spec, resolved),
        max_model_len=resolved.max_model_len,
        end_token_ids=prepared.end_token_ids,
        seed=resolved.seed,
        plans_ahead=resolved.device != "cpu",
    )
    give_memory_back()
    return engine


def _runner(decoder: Decoder, resolved: Resolved, greens: Greens | None) -> Runner:
    """On a GPU, with a spare block for the empty rows of graphs."""
    device, ops = torch.device(resolved.device), decoder.ops
    is_gpu = device.type != "cpu"
    cache = KVCache(
        decoder.spec,
        resolved.num_blocks + is_gpu,
        resolved.block_size,
        resolved.kv_dtype,
        ops=ops,
        device=device,
    )
    return Runner(
        decoder, cache, ops, transfers_for(device), greens, graphs_of(decoder, cache, resolved)
    )


def graphs_of(decoder: Decoder, cache: KVCache, resolved: Resolved) -> Graphs | None:
    """A GPU's rows are filled up, for every recording holds memory there. On a CPU an empty row
    would be computed like any other, so every size has its own; beyond some, what a recording
    saves is nothing beside the rest.
    """
    record = decoder.ops.recorder()
    if record is None:
        return None
    on_gpu = resolved.device != "cpu"
    largest = min(resolved.max_num_seqs, LARGEST_GRAPH if on_gpu else LARGEST_ON_CPU)
    return Graphs(
        decoder,
        cache,
        record,
        sizes=powers_of_two(largest) if on_gpu else range(1, largest + 1),
        max_model_len=resolved.max_model_len,
        spare_block=resolved.num_blocks if on_gpu else 0,
    )


def _grammars(prepared: Prepared, tokenizer: Tokenizer | None) -> Grammars:
    settings = prepared.settings
    return Grammars(
        prepared.weights.model_dir,
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


def _facts(
    name: str, config: ModelConfig, model_dir: Path, snapshot: Snapshot | None, ops: Ops
) -> ModelFacts:
    spec = config.spec
    dtype = str(config.dtype).removeprefix("torch.")
    kept_as = dtype if config.compression is None else config.compression.weights
    if snapshot is None:
        weight_bytes = sum(path.stat().st_size for path in weight_files(model_dir))
        num_parameters = int(weight_bytes / WEIGHT_BYTES[kept_as])
    else:
        num_parameters = snapshot.origin.num_parameters
    return ModelFacts(
        name=name,
        architecture=config.architecture,
        num_parameters=num_parameters,
        packed_as=snapshot.origin.weights if snapshot else None,
        checkpoint_dtype=dtype,
        checkpoint_weights=kept_as,
        max_positions=spec.max_positions,
        vocab_size=spec.vocab_size,
        kv_block_bytes={
            dtype: block_bytes(spec, BLOCK_SIZE, dtype, ops) for dtype in ops.kv_dtypes
        },
        head_dim=spec.head_dim,
        biases_keys=isinstance(spec.position, Alibi),
    )
