"""Write the pages that the code itself knows best: docs/sampling.md and docs/commands.md.

Usage: python -m scripts.write_docs
A test fails while these pages differ from what the code says.
"""

from pathlib import Path
from typing import Any

import msgspec.json
import typer.main

from penstock.cli.app import app
from penstock.vocabulary.sampling_params import SamplingParams

DOCS = Path(__file__).parents[1] / "docs"
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {}",
    "maxProperties": "at most {}",
}


def sampling_page() -> str:
    """docs/sampling.md: every sampling option with type, range, default and meaning."""
    schema = msgspec.json.schema(SamplingParams)["$defs"]["SamplingParams"]
    lines = [
        "# Sampling options",
        "",
        "Written by `python -m scripts.write_docs` from `vocabulary/sampling_params.py`. The same",
        "names hold in Python, over HTTP, and as flags of `penstock generate` and `penstock chat`.",
        "",
        "| option | type | range | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, field in schema["properties"].items():
        default = "none" if field.get("default") is None else f"`{field['default']}`"
        cells = (f"`{name}`", _type(field), _range(field), default, field["description"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """docs/commands.md: every command with its arguments and flags."""
    lines = [
        "# Commands",
        "",
        "Written by `python -m scripts.write_docs` from the commands themselves.",
    ]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        summary = " ".join(command.help.split("\n\n")[0].split())
        lines += [
            "",
            f"## penstock {name}",
            "",
            summary,
            "",
            "| flag | default | meaning |",
            "|---|---|---|",
        ]
        for parameter in command.params:
            if parameter.name == "help":
                continue
            flags = ", ".join(f"`{flag}`" for flag in [*parameter.opts, *parameter.secondary_opts])
            default = "" if parameter.default is None else f"`{parameter.default}`"
            lines.append(f"| {flags} | {default} | {' '.join(parameter.help.split())} |")
    return "\n".join(lines) + "\n"


def _alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]


def _type(field: dict[str, Any]) -> str:
    return " or ".join(
        f"list of {each['items']['type']}" if each["type"] == "array" else each["type"]
        for each in _alternatives(field)
    )


def _range(field: dict[str, Any]) -> str:
    bounds = [
        words.format(each[bound])
        for each in _alternatives(field)
        for bound, words in _BOUNDS.items()
        if bound in each and abs(each[bound]) < 2**62
    ]
    return ", ".join(dict.fromkeys(bounds))


def main() -> None:
    """Write both pages."""
    (DOCS / "sampling.md").write_text(sampling_page())
    (DOCS / "commands.md").write_text(commands_page())


if __name__ == "__main__":
    main()
