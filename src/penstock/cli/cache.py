"""`penstock cache`: what is kept of models that were served before."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

_GIB = 2**30
_HOUR_S = 3600


def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove everything. Servers that run are not disturbed.")
    ] = False,
) -> None:
    """List the packed weights that are kept for the next start, and where.

    They are under $XDG_CACHE_HOME/penstock/packed, by default ~/.cache/penstock/packed. Removing
    them is always safe.
    """
    console = Console(highlight=False)
    with Console(stderr=True).status("Importing torch"):
        from penstock.models.packed_cache import PackedCache, cache_root
    kept = PackedCache(cache_root(), limit_bytes=0)
    if clear:
        kept.clear()
    table = Table(title=str(kept.root), title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("model", "weights", "for", "GiB", "used"):
        table.add_column(heading, overflow="fold")
    entries = kept.entries()
    for entry in entries:
        origin, hours = entry.origin, (time.time() - entry.used_at) / _HOUR_S
        size = f"{entry.nbytes / _GIB:.2f}"
        used = f"{hours:,.0f} hours ago"
        table.add_row(origin.source, origin.weights, origin.instruction_set, size, used)
    console.print(table if entries else f"Nothing is kept in {kept.root}.", soft_wrap=True)
