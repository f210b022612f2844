"""What was chosen, and why: the table that a start prints."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from penstock.engine.settings import Resolved
from penstock.engine.wire import Ready

_MIB = 2**20


Row = tuple[str, str, str]
"""Of the table: a setting, its value, and why."""


def print_settings(
    resolved: Resolved, notes: list[str], console: Console, more: Sequence[Row] = ()
) -> None:
    """One row per setting, with its reason, and `more`; below, what the hardware lacks."""
    table = Table(title="Penstock", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("setting", style="cyan", no_wrap=True)
    table.add_column("value", style="bold")
    table.add_column("why", style="dim")
    for row in [*settings_rows(resolved), *more]:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def settings_rows(resolved: Resolved) -> list[Row]:
    """What was chosen for an engine, and why."""
    why = resolved.reasons
    full_size = resolved.kv_tokens // resolved.max_model_len
    holds = f"{resolved.kv_tokens:,} tokens: {full_size:,} sequences of full length"
    caching = "computed prompts are kept for others" if resolved.prefix_caching else "as asked"
    return [
        ("model", resolved.model, resolved.architecture),
        ("device", resolved.device, resolved.device_name),
        ("weights", resolved.weights, why["weights"]),
        ("kv_dtype", resolved.kv_dtype, why["kv_dtype"]),
        ("attention", resolved.attention, why["attention"]),
        ("deterministic", "on" if resolved.deterministic else "off", why["deterministic"]),
        ("max_model_len", f"{resolved.max_model_len:,} tokens", why["max_model_len"]),
        ("token_budget", f"{resolved.token_budget:,} tokens a step", why["token_budget"]),
        ("max_num_seqs", f"{resolved.max_num_seqs:,}", why["max_num_seqs"]),
        (
            "KV cache",
            f"{resolved.num_blocks:,} blocks of {resolved.block_size}, "
            f"{resolved.kv_bytes / _MIB:,.0f} MiB",
            why["kv_cache"],
        ),
        ("", holds, "if all of them were that long"),
        ("prefix_caching", "on" if resolved.prefix_caching else "off", caching),
        ("packed_cache", "on" if resolved.packed_cache else "off", why["packed_cache"]),
    ]


def replica_rows(engines: Sequence[Ready]) -> list[Row]:
    """Where several engines compute; each has all that the table says of one."""
    if len(engines) == 1:
        return []
    if engines[0].resolved.device == "cpu":
        counts = sorted({engine.num_threads for engine in engines})
        threads = " or ".join(map(str, counts))
        where = f"each on {threads} {'thread' if counts == [1] else 'threads'}"
    else:
        where = "on " + ", ".join(engine.resolved.device for engine in engines)
    return [("replicas", str(len(engines)), f"{where}, with a KV cache of its own")]
