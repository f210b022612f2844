"""Which formats a served model speaks: as told, or as its chat template teaches it."""

from dataclasses import dataclass

from penstock.text.parsing.deepseek import DEEPSEEK
from penstock.text.parsing.hermes import HERMES
from penstock.text.parsing.llama3_json import LLAMA3_JSON
from penstock.text.parsing.mistral import MISTRAL
from penstock.text.parsing.pythonic import PYTHONIC
from penstock.text.parsing.reasoning import MISTRAL_THINK, THINK, ReasoningFormat
from penstock.text.parsing.tool_format import ToolFormat
from penstock.vocabulary.errors import SettingsError

# In the order of asking: a template may mention the tag of a format that it does not teach.
TOOL_FORMATS = (DEEPSEEK, MISTRAL, PYTHONIC, HERMES, LLAMA3_JSON)
REASONING_FORMATS = (MISTRAL_THINK, THINK)

AUTO, NONE = "auto", "none"
TOOL_PARSERS = (AUTO, NONE, *sorted(format.name for format in TOOL_FORMATS))
REASONING_PARSERS = (AUTO, NONE, *sorted(format.name for format in REASONING_FORMATS))


@dataclass(frozen=True, kw_only=True)
class Formats:
    """What to look for in the served model's answers; None: nothing. The reasons say why.

    `template_source` is that of the chat template, empty if there is none.
    """

    tools: ToolFormat | None
    reasoning: ReasoningFormat | None
    tools_reason: str
    reasoning_reason: str
    template_source: str


def check_parser_names(tool_parser: str, reasoning_parser: str) -> None:
    """Raises `SettingsError` for a name that no parser has."""
    for setting, name, known in (
        ("tool_parser", tool_parser, TOOL_PARSERS),
        ("reasoning_parser", reasoning_parser, REASONING_PARSERS),
    ):
        if name not in known:
            raise SettingsError(
                f"There is no {setting} {name!r}.", remedy=f"Choose one of {', '.join(known)}."
            )


def chosen_formats(tool_parser: str, reasoning_parser: str, template: str | None) -> Formats:
    """The formats of these names, or those that the chat template with this source teaches."""
    source = template or ""
    tools = next(
        (
            each
            for each in TOOL_FORMATS
            if (each.is_taught_by(source) if tool_parser == AUTO else each.name == tool_parser)
        ),
        None,
    )
    reasoning = next(
        (
            each
            for each in REASONING_FORMATS
            if (each.close in source if reasoning_parser == AUTO else each.name == reasoning_parser)
        ),
        None,
    )
    return Formats(
        tools=tools,
        reasoning=reasoning,
        tools_reason=_reason(tool_parser, tools is not None, template),
        reasoning_reason=_reason(reasoning_parser, reasoning is not None, template),
        template_source=source,
    )


def _reason(asked: str, is_found: bool, template: str | None) -> str:
    if asked != AUTO:
        return "as asked"
    if template is None:
        return "the model has no chat template"
    return "as the chat template has it" if is_found else "the chat template has none that we know"
