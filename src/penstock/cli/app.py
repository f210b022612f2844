"""The commands, in the order in which `penstock --help` shows them."""

from typing import Annotated

import typer

from penstock import __version__
from penstock.cli.azureml import azureml
from penstock.cli.bench import bench
from penstock.cli.cache import cache
from penstock.cli.chat import chat
from penstock.cli.deployments import deployments
from penstock.cli.detect_watermark import detect_watermark
from penstock.cli.doctor import doctor
from penstock.cli.flags import with_flags
from penstock.cli.generate import generate
from penstock.cli.key import key
from penstock.cli.quantize import quantize
from penstock.cli.run_batch import run_batch
from penstock.cli.serve import serve
from penstock.cli.snapshot import snapshot

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    serve,
    azureml,
    generate,
    chat,
    run_batch,
    detect_watermark,
    snapshot,
    quantize,
    key,
    cache,
    doctor,
):
    app.command()(with_flags(command))
app.add_typer(bench)
app.add_typer(deployments)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit()


@app.callback()
def penstock(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Say which version this is."
        ),
    ] = False,
) -> None:
    """Serve large language models, on CPUs and GPUs.

    Without a model, every command uses a small one that comes with the package: it completes Python
    code, after a fashion, and needs no download. Try **penstock generate "def fibonacci(n):"**
    """
