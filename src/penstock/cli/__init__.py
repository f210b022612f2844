"""The command `penstock`: one module per command."""

import os
import sys


def main() -> None:
    """Run the command line; errors with a remedy are printed without a traceback."""
    from penstock.cli.app import app
    from penstock.vocabulary.errors import PenstockError

    try:
        app()
    except PenstockError as error:
        from rich.console import Console

        console = Console(stderr=True)
        console.print(f"[bold red]Error:[/] {error.message}", highlight=False)
        if error.remedy:
            console.print(error.remedy, highlight=False)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has had enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
