"""Write the pages that the code itself knows best: docs/sampling.md, commands.md and http.md.

Usage: python -m scripts.write_docs
A test fails while these pages differ from what the code says.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import msgspec.json
import typer.main

from penstock.cli.app import app
from penstock.server.admin import ADMIN
from penstock.server.endpoint import Endpoint
from penstock.server.openai.bodies import GenerationBody
from penstock.server.openai.fields import IGNORED, REFUSED
from penstock.server.openai.response_body import REFUSED_IN_RESPONSES
from penstock.server.routes import ALWAYS, DIALECTS
from penstock.server.settings import ServerSettings
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
    for name, command in commands(typer.main.get_command(app)):
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
            default = _default(parameter.default)
            lines.append(f"| {flags} | {default} | {' '.join(parameter.help.split())} |")
    return "\n".join(lines) + "\n"


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, those of a group ("bench serve") included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _default(value: Any) -> str:
    if value is None:
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(f"`{each}`" for each in values)


def http_page() -> str:
    """docs/http.md: every route, what its body takes beside the sampling options, and what not."""
    lines = [
        "# HTTP",
        "",
        "Written by `python -m scripts.write_docs` from the routes themselves. A running server",
        "describes the same, for machines, at `/openapi.json`.",
        "",
        "With an API key set, every route but those that say otherwise wants",
        "`Authorization: Bearer KEY` or `x-api-key: KEY`; see [security](security.md). `--dialect`",
        "chooses whose routes there are.",
        "",
        "| dialect | for | by default |",
        "|---|---|---|",
    ]
    defaults = ServerSettings().dialects
    for dialect in DIALECTS:
        is_default = "yes" if dialect.name in defaults else ""
        lines.append(f"| `{dialect.name}` | {dialect.about} | {is_default} |")
    for dialect in DIALECTS:
        lines += ["", f"## Dialect: {dialect.name}", *_routes(dialect.endpoints)]
    lines += ["", "## In every dialect", *_routes(ALWAYS)]
    lines += [
        "",
        "## For admins",
        "",
        "With an admin key; or, on a server without any key, from the same machine.",
        *_routes(ADMIN),
    ]
    lines += _foreign_fields()
    return "\n".join(lines) + "\n"


def _foreign_fields() -> list[str]:
    """What OpenAI's clients may send that means nothing here, or cannot be had."""
    lines = [
        "",
        "## OpenAI's fields accepted without effect",
        "",
        "Clients of OpenAI's API send these. They mean nothing here.",
    ]
    lines += ["", "| field | why that is right |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in IGNORED.items()]
    lines += [
        "",
        "## OpenAI's fields refused",
        "",
        "These would change the answer, and are not supported yet.",
    ]
    lines += ["", "| field | values that pass, since they ask for nothing |", "|---|---|"]
    for name, harmless in REFUSED.items():
        passing = ", ".join(f"`{json.dumps(value)}`" for value in (*harmless, None))
        lines.append(f"| `{name}` | {passing} |")
    lines += [
        "",
        "Of `/v1/responses`, because nothing is stored here, or nothing runs here:",
        "",
        "| field | values that pass | why others are refused |",
        "|---|---|---|",
    ]
    for name, (passing_values, why) in REFUSED_IN_RESPONSES.items():
        passing = ", ".join(f"`{json.dumps(value)}`" for value in (*passing_values, None))
        lines.append(f"| `{name}` | {passing} | {why} |")
    lines += ["", "Any other field is unknown: the error names it, and the nearest known one."]
    return lines


def _routes(endpoints: Iterable[Endpoint]) -> Iterator[str]:
    for endpoint in endpoints:
        summary = " ".join((endpoint.handler.__doc__ or "").split("\n\n")[0].split())
        summary += " Open to those without a key." if endpoint.open else ""
        yield from ("", f"### {endpoint.method} {endpoint.path}", "", summary)
        if endpoint.body is None:
            continue
        if issubclass(endpoint.body, GenerationBody):
            yield from ("", "Takes the [sampling options](sampling.md), and of its own:")
        yield from ("", *_fields_table(endpoint.body))


def _fields_table(body: type[msgspec.Struct]) -> list[str]:
    definitions = msgspec.json.schema(body)["$defs"]
    rows = _field_rows(definitions[body.__name__], definitions)
    return ["| field | meaning |", "|---|---|", *rows]


def _field_rows(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> Iterator[str]:
    """A row for each field, and below an object's for each of its own."""
    for name, field in schema.get("properties", {}).items():
        yield f"| `{prefix}{name}` | {field.get('description', '')} |"
        inner = definitions.get(field.get("$ref", "").rpartition("/")[2], {})
        yield from _field_rows(inner, definitions, f"{prefix}{name}.")


def _alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in field.get("anyOf", [field]) if each.get("type") != "null"]


def _type(field: dict[str, Any]) -> str:
    return " or ".join(
        f"list of {each['items']['type']}"
        if each.get("type") == "array"
        else each.get("type", "object")
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
    """Write all pages."""
    (DOCS / "sampling.md").write_text(sampling_page())
    (DOCS / "commands.md").write_text(commands_page())
    (DOCS / "http.md").write_text(http_page())


if __name__ == "__main__":
    main()
