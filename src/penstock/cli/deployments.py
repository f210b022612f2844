"""`penstock deployments`: servers that penstock.serve has started and that still run."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

deployments = typer.Typer(
    name="deployments",
    no_args_is_help=True,
    help="See and end the servers that `penstock.serve` has started from Python.",
)


@deployments.command("list")
def show() -> None:
    """List the deployments that run, with what a client needs to reach them but the key."""
    from penstock.server.deployments.record import directory, running

    table = Table(show_edge=False, pad_edge=False)
    for heading in ("name", "model", "url", "pid", "log"):
        table.add_column(heading, overflow="fold")
    found = running()
    for each in found:
        table.add_row(each.name, each.model, each.url, str(each.pid), each.log)
    nothing = f"No deployment is running (looked in {directory()})."
    Console(highlight=False).print(table if found else nothing, soft_wrap=True)


@deployments.command()
def stop(
    name: Annotated[str, typer.Argument(help="The deployment's name, or its model's.")],
) -> None:
    """End a deployment when its running requests have finished."""
    from penstock.server.deployments.client import terminate
    from penstock.server.deployments.record import find

    deployment = find(name)
    terminate(deployment)
    Console(highlight=False).print(f"{deployment.name} has ended.")
