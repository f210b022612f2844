"""How much of a GPU's memory keys and values get: measured, since nobody knows what a step takes.

Once the weights are loaded, the largest step that there can be is computed. What that took at its
peak stays free, and so does a share of the whole; the rest becomes blocks.
"""

from dataclasses import replace

import numpy as np
import torch

from penstock.engine.cache_size import GPU_SHARE, fitting_len
from penstock.engine.runner import PROMPT_ROWS
from penstock.engine.settings import EngineSettings, Resolved
from penstock.engine.transfers import Transfers
from penstock.kernels.step_layout import StepLayout
from penstock.models.decoder import Decoder
from penstock.models.kv_cache import KVCache

_MIB = 2**20


def fitted(resolved: Resolved, settings: EngineSettings, decoder: Decoder) -> Resolved:
    """The settings with as many blocks as the device has room for beside the decoder. On a CPU, and
    where somebody said how many, they stay as they are. Raises `SettingsError` if too few fit.
    """
    if resolved.device == "cpu" or settings.kv_cache_gib is not None:
        return resolved
    device = torch.device(resolved.device)
    workspace = measured_workspace(decoder, resolved, device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    room = free - workspace - int((1 - GPU_SHARE) * total)
    return with_room(resolved, settings, room, workspace)


def with_room(resolved: Resolved, settings: EngineSettings, room: int, workspace: int) -> Resolved:
    """The settings with a cache of `room` bytes, beside a workspace of so many."""
    num_blocks = max(0, room) // resolved.block_bytes
    taken = f"{workspace / _MIB:,.0f} MiB"
    reasons = resolved.reasons | {
        "kv_cache": f"what weights and the largest step, measured at {taken}, leave free"
    }
    max_model_len = fitting_len(settings.max_model_len, resolved.max_model_len, num_blocks, reasons)
    return replace(resolved, num_blocks=num_blocks, max_model_len=max_model_len, reasons=reasons)


@torch.inference_mode()
def measured_workspace(decoder: Decoder, resolved: Resolved, device: torch.device) -> int:
    """Bytes that the largest step takes at its peak, keys and values excepted."""
    layout = largest_step(resolved, device)
    cache = KVCache(
        decoder.spec,
        -(-resolved.token_budget // resolved.block_size) + resolved.max_num_seqs,
        resolved.block_size,
        resolved.kv_dtype,
        ops=decoder.ops,
        device=device,
    )
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    hidden = decoder(torch.zeros_like(layout.positions), layout, cache)
    logits = decoder.logits(hidden[: max(resolved.max_num_seqs, PROMPT_ROWS)])
    decoder.ops.argmax(logits)
    return torch.cuda.max_memory_allocated(device) - before


def largest_step(resolved: Resolved, device: torch.device) -> StepLayout:
    """As many tokens as a step may have, in slices as long as a sequence may be."""
    full, rest = divmod(resolved.token_budget, resolved.max_model_len)
    lens = [resolved.max_model_len] * full + [rest] * bool(rest)
    block_size = resolved.block_size
    num_blocks = [-(-length // block_size) for length in lens]
    table = np.zeros((len(lens), max(num_blocks)), dtype=np.int64)
    first = np.cumsum([0, *num_blocks])
    for row, count in enumerate(num_blocks):
        table[row, :count] = first[row] + np.arange(count)
    positions = np.concatenate([np.arange(length) for length in lens])
    slots = positions + np.repeat(first[:-1] * block_size, lens)
    arrays = positions, slots, table, np.cumsum([0, *lens], dtype=np.int32)
    tensors = Transfers(device).to_device([*arrays, np.array(lens, dtype=np.int32)])
    return StepLayout(
        positions=tensors[0],
        slot_mapping=tensors[1],
        block_table=tensors[2],
        cu_seqlens_q=tensors[3],
        context_lens=tensors[4],
        query_lens_host=lens,
        context_lens_host=lens,
    )
