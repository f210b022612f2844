"""`penstock key`: a new API key."""

from typing import Annotated

import typer

from penstock.server.keys import key_entry, new_key


def key(
    name: Annotated[
        str, typer.Option(help="Whose it is: what logs, metrics and traces call its requests.")
    ] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="It opens the admin routes too.")] = False,
) -> None:
    """Make an API key: show it, once, and print what a key file keeps of it.

        penstock key --name alice >> keys.toml
        penstock serve --api-key-file keys.toml

    The entry has only the key's hash; limits may be added to it: docs/security.md.
    """
    made = new_key()
    entry = key_entry(name, made, admin=admin)
    typer.echo(f"The key of {name}, shown this once:\n\n{made}\n", err=True)
    typer.echo(entry)
