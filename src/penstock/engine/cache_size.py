"""How many blocks keys and values get, and how long a sequence may then be. Plain numbers."""

from penstock.vocabulary.errors import SettingsError

BLOCK_SIZE = 16
GPU_SHARE = 0.9
"""Of a GPU's memory, what may be taken: others want some of it too, and so does the driver."""
_USUAL_LEN = 1024  # tokens that a sequence holds when many are served at once


def wanted_blocks(max_model_len: int, max_num_seqs: int) -> int:
    """Blocks beyond which more would hardly ever be used."""
    per_sequence = -(-max_model_len // BLOCK_SIZE)
    usual = max_num_seqs * _USUAL_LEN // BLOCK_SIZE
    return min(per_sequence * max_num_seqs, max(8 * per_sequence, usual))


def fitting_blocks(free: int, block_bytes: int, wanted: int | None, reasons: dict[str, str]) -> int:
    """The blocks wanted, if they fit into half of what the weights leave free. With none wanted in
    particular, as many as fit into most of it: a GPU has nothing better to do with its memory, and
    measures what is left once the weights are loaded (`engine/memory.py`). Raises `SettingsError`
    if the weights leave nothing.
    """
    if free <= 0:
        raise SettingsError(
            "The weights do not fit into the free memory.",
            remedy="Use --weights bfloat16, a smaller model, or a machine with more memory.",
        )
    if wanted is None:
        reasons["kv_cache"] = "most of what the weights leave free"
        return int(free * GPU_SHARE) // block_bytes
    fitting = int(free * 0.5) // block_bytes
    if fitting < wanted:
        reasons["kv_cache"] = "half of what the weights leave free"
        return fitting
    reasons["kv_cache"] = f"max_num_seqs sequences of {_USUAL_LEN:,} tokens, or 8 of full length"
    return wanted


def fitting_len(
    asked: int | None, max_model_len: int, num_blocks: int, reasons: dict[str, str]
) -> int:
    """max_model_len, or what the cache holds if that is less and nobody asked for a length. Raises
    `SettingsError` where somebody did.
    """
    held = num_blocks * BLOCK_SIZE
    if held >= max_model_len:
        return max_model_len
    if asked is not None or num_blocks < 1:
        raise SettingsError(
            f"The KV cache holds {held} tokens, fewer than one sequence of {max_model_len}.",
            remedy="Lower --max-model-len, raise --kv-cache-gib, or use --weights bfloat16.",
        )
    reasons["max_model_len"] = f"as much as the KV cache holds; the model could do {max_model_len}"
    return held
