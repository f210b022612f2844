"""`penstock detect-watermark`: whether a text is one of ours."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from penstock.engine.detection import detect_watermark as detect
from penstock.vocabulary.errors import SettingsError
from penstock.vocabulary.watermark import WatermarkReport


def detect_watermark(
    key: Annotated[
        str,
        typer.Option(
            "--watermark-key",
            envvar="PENSTOCK_WATERMARK_KEY",
            help="The secret that the text was marked with.",
        ),
    ],
    text: Annotated[
        Path | None, typer.Argument(help="File of text. Without one, standard input is read.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model whose texts to look for; only its tokenizer is read. Without one, the "
            "small embedded model."
        ),
    ] = None,
    gamma: Annotated[float, typer.Option(help="The gamma that texts are marked with.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Tell whether a text was watermarked with a key.

    PENSTOCK_WATERMARK_KEY=secret penstock detect-watermark essay.txt

    The z-score says by how many standard deviations there are more green tokens than chance would
    have. Above 4 the text counts as watermarked; of texts written without the key, one in 31,000
    comes so far.
    """
    report = detect(_read(text), key=key, model=model, gamma=gamma)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        Console(highlight=False).print(_table(report))


def _read(path: Path | None) -> str:
    try:
        return sys.stdin.read() if path is None else path.read_text()
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path or 'Standard input'} is not text in UTF-8.") from None


def _table(report: WatermarkReport) -> Table:
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    share = report.num_green / report.num_scored
    for row in (
        ("tokens", f"{report.num_tokens:,}, of which {report.num_scored:,} count"),
        ("green", f"{report.num_green:,} ({share:.0%}; {report.gamma:.0%} by chance)"),
        ("z-score", f"{report.z_score:.2f}"),
        ("p-value", f"{report.p_value:.3g}"),
        ("watermarked", "[bold]yes[/]" if report.is_watermarked else "no"),
    ):
        table.add_row(*row)
    return table
