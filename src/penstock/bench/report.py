"""What was measured, as tables and as a file from which it can be done again."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from penstock import __version__
from penstock.bench.in_process import Latency, Throughput, medians
from penstock.bench.load import LoadResult
from penstock.bench.timing import Distribution
from penstock.engine.host import cpu_name, free_memory, num_cores
from penstock.engine.machine_use import MachineLimits, MachineUse

_VERSIONS_OF = ("torch", "numpy", "tokenizers", "safetensors", "uvloop", "httpx2")
_SECRETS = ("api_key", "watermark_key")


def latency_table(results: Sequence[Latency]) -> Table:
    """One row for each length of prompt."""
    table = _table("One stream (medians of the runs)")
    for name in ("prompt", "output", "first token", "next token p50", "p90", "p99"):
        table.add_column(name, justify="right")
    table.add_column("whole request", justify="right")
    table.add_column("tok/s", justify="right", style="bold")
    for each in results:
        table.add_row(
            str(each.prompt_len),
            str(each.output_len),
            seconds(each.first_token_s),
            seconds(each.inter_token_p50_s),
            seconds(each.inter_token_p90_s),
            seconds(each.inter_token_p99_s),
            seconds(each.end_to_end_s),
            f"{each.tokens_per_s:,.1f}",
        )
    return table


def throughput_table(passes: Sequence[Throughput]) -> Table:
    """One row for each pass, and below several of them their medians."""
    table = _table("Everything at once")
    for name in ("pass", "requests", "prompt tok", "output tok", "seconds", "req/s"):
        table.add_column(name, justify="right")
    table.add_column("output tok/s", justify="right", style="bold")
    table.add_column("total tok/s", justify="right")
    for number, each in enumerate(passes, start=1):
        table.add_row(
            str(number),
            str(each.num_requests),
            f"{each.num_prompt_tokens:,}",
            f"{each.num_output_tokens:,}",
            f"{each.duration_s:,.1f}",
            f"{each.requests_per_s:,.2f}",
            f"{each.output_tokens_per_s:,.1f}",
            f"{each.total_tokens_per_s:,.1f}",
        )
    if len(passes) > 1:
        rates = [f"{rate:,.2f}" for rate in medians(passes).values()]
        table.add_row("median", "", "", "", "", *rates)
    return table


def machine_table(use: MachineUse, limits: MachineLimits) -> Table:
    """What was made use of, beside what the machine can do, measured in the same run."""
    table = _table("Of what this machine can do")
    for name in ("", "done", "measured limit"):
        table.add_column(name, justify="right")
    table.add_column("share", justify="right", style="bold")
    table.add_row(
        "multiply-adds",
        f"{use.multiply_adds_per_s / 1e9:,.1f} G/s",
        f"{limits.multiply_adds_per_s / 1e9:,.1f} G/s",
        f"{use.arithmetic_share:.0%}",
    )
    table.add_row(
        "bytes read",
        f"{use.bytes_read_per_s / 1e9:,.1f} GB/s",
        f"{limits.bytes_read_per_s / 1e9:,.1f} GB/s",
        f"{use.bandwidth_share:.0%}",
    )
    return table


def rates_table(results: Sequence[LoadResult]) -> Table:
    """What the server achieved under each load, failures included."""
    table = _table("What the server did")
    for name in ("load", "sent", "answered", "req/s", "output tok/s", "total tok/s"):
        table.add_column(name, justify="right")
    table.add_column("failed")
    for each in results:
        total = each.summary
        failures = ", ".join(f"{count} x {why}" for why, count in total.failures.items())
        table.add_row(
            load_name(each),
            str(total.num_sent),
            str(total.num_answered),
            f"{total.requests_per_s:,.2f}",
            f"{total.output_tokens_per_s:,.1f}",
            f"{total.total_tokens_per_s:,.1f}",
            f"[bold red]{failures}[/]" if failures else "none",
        )
    return table


def effective_table(results: Sequence[LoadResult]) -> Table:
    """How many requests satisfied readers of each speed, per second and of all that were sent."""
    table = _table("Served well: req/s and share of all sent, by the reader's speed")
    table.add_column("load", justify="right")
    for one in results[0].summary.effective:
        table.add_column(f"{one.reading_speed:g} tok/s", justify="right")
    for each in results:
        cells = (f"{one.requests_per_s:,.2f} ({one.share:.0%})" for one in each.summary.effective)
        table.add_row(load_name(each), *cells)
    return table


def latencies_table(results: Sequence[LoadResult]) -> Table:
    """How long the answered requests took under each load."""
    table = _table("How long it took (answered requests)")
    table.add_column("load", justify="right")
    table.add_column("time")
    for name in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right")
    for each in results:
        total = each.summary
        name = load_name(each)
        table.add_row(name, "first token", *_cells(total.first_token_s))
        table.add_row("", "between tokens", *_cells(total.inter_token_s))
        table.add_row("", "whole request", *_cells(total.end_to_end_s), end_section=True)
    return table


def load_name(result: LoadResult) -> str:
    """The load as a person says it."""
    if result.rate is not None:
        return f"{result.rate:g} requests/s"
    return "1 client" if result.clients == 1 else f"{result.clients} clients"


def seconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None:
        return "-"
    if value < 0.9995:
        return f"{value * 1000:,.3g} ms" if value < 0.1 else f"{value * 1000:,.0f} ms"
    return f"{value:,.2f} s"


def write_json(path: Path, benchmark: str, settings: Sequence[Any], **figures: Any) -> None:
    """The figures with all that is needed to get them again: settings, machine, versions, date."""
    document = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "penstock": __version__,
        "machine": _machine(),
        "versions": {name: _version(name) for name in _VERSIONS_OF},
        "settings": {
            name: value
            for group in settings
            for name, value in dataclasses.asdict(group).items()
            if name not in _SECRETS
        },
        **figures,
    }
    encoded = msgspec.json.encode(document, enc_hook=str)
    path.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "processor": cpu_name(),
        "cores": num_cores(),
        "free_memory_bytes": free_memory(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cells(values: Distribution) -> list[str]:
    return [seconds(value) for value in dataclasses.astuple(values)]


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
