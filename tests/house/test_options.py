"""A sampling option is declared once, read somewhere, and documented. Flags do not change
unnoticed.
"""

import re
from pathlib import Path

import msgspec.structs
import pytest
import typer.main

from penstock.cli.app import app
from penstock.vocabulary.sampling_params import SamplingParams

ROOT = Path(__file__).parents[2]
OPTIONS = [field.name for field in msgspec.structs.fields(SamplingParams)]
READERS = {
    path: path.read_text()
    for folder in ("kernels", "engine", "scheduling", "text", "server")
    for path in (ROOT / "src" / "penstock" / folder).rglob("*.py")
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_sampling_option_is_read_by_something(option):
    through = {"stop": "stop_strings", "temperature": '"temperature"'}.get(option, option)
    reads = re.compile(rf"(\.|\"){re.escape(through.strip(chr(34)))}\b")
    assert any(reads.search(text) for text in READERS.values()), f"nothing reads {option}"


def test_the_manual_of_sampling_options_is_what_their_declarations_say():
    """`scripts/write-docs` writes docs/sampling.md; run it when this fails."""
    from scripts.write_docs import sampling_page

    assert (ROOT / "docs" / "sampling.md").read_text() == sampling_page()


def test_the_manual_of_commands_is_what_the_commands_say():
    """Flags are a promise: a change shows here, and in docs/commands.md, where users will look."""
    from scripts.write_docs import commands_page

    assert (ROOT / "docs" / "commands.md").read_text() == commands_page()


def test_the_manual_of_routes_is_what_the_routes_say():
    from scripts.write_docs import http_page

    assert (ROOT / "docs" / "http.md").read_text() == http_page()


def test_every_flag_has_help():
    from scripts.write_docs import commands

    silent = [
        f"{name} {parameter.name}"
        for name, command in commands(typer.main.get_command(app))
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert not silent
