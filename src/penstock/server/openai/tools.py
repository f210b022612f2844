"""Tools in the shapes of OpenAI's chat completions, and what one request makes of them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.server.errors import HttpError
from penstock.text.parsing.choice import AUTO, NONE, TOOL_PARSERS, Formats
from penstock.text.parsing.tool_format import ToolFormat
from penstock.vocabulary.errors import InvalidRequest

MAX_TOOLS = 128

ToolName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$(?!\n)")]


class FunctionDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function that the model may call. Without parameters it takes none."""

    name: ToolName
    description: str | None = None
    parameters: Annotated[
        dict[str, Any] | None, Meta(description="A JSON schema of the arguments.")
    ] = None
    strict: Annotated[
        bool | None, Meta(description="Arguments must follow the schema exactly.")
    ] = None


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool on offer."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which function."""

    name: ToolName


class NamedTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one tool to call."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call in a conversation. The arguments are JSON text; an object is understood, too, and null
    are none.
    """

    name: str
    arguments: str | dict[str, Any] | None = None


class PastCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that an earlier answer made, as clients send it back. `index` says nothing."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it."""
        call = {"type": self.type, "function": msgspec.to_builtins(self.function)}
        return call if self.id is None else {"id": self.id, **call}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the model may call in one request, and how. Without tools: nothing.

    It reads of all `tools`. Where the client has chosen the function itself, `named` is its name;
    `must_call` says that there is to be a call. `max_calls` is None for any number.
    """

    tools: list[Tool]
    format: ToolFormat | None
    must_call: bool = False
    named: str | None = None
    max_calls: int | None = None

    @property
    def names(self) -> frozenset[str]:
        """The functions that may be called."""
        every = frozenset(tool.function.name for tool in self.tools)
        return every if self.named is None else frozenset({self.named})

    def for_template(self) -> list[dict[str, Any]] | None:
        """The tools as chat templates expect them."""
        return [_for_template(tool.function) for tool in self.tools] or None


NOTHING = Offer(tools=[], format=None)


def offer(
    tools: list[Tool] | None,
    choice: ToolChoice | None,
    *,
    parallel: bool,
    formats: Formats,
) -> Offer:
    """What a request offers; tools that must not be called are as good as none.

    Raises for a request that contradicts itself, and for tools that the model would never see or
    whose calls nobody would recognize.
    """
    named = choice.function.name if isinstance(choice, NamedTool) else None
    if not tools:
        if choice not in (None, "none", "auto"):
            raise InvalidRequest("tool_choice needs tools to choose from.", param="tool_choice")
        return NOTHING
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidRequest("Two tools have the same name.", param="tools")
    if named is not None and named not in names:
        raise InvalidRequest(f"tool_choice names {named}, which is no tool.", param="tool_choice")
    if choice == "none":
        return NOTHING
    if formats.tools is None or "tools" not in formats.template_source:
        raise _no_tools(formats.tools)
    return Offer(
        tools=tools,
        format=formats.tools,
        must_call=choice not in (None, "auto"),
        named=named,
        max_calls=None if parallel and named is None else 1,
    )


def _no_tools(format: ToolFormat | None) -> HttpError:
    why = (
        "how this model writes tool calls is not known; start the server with --tool-parser, "
        f"one of {', '.join(name for name in TOOL_PARSERS if name not in (AUTO, NONE))}"
        if format is None
        else "this model's chat template has no place for them"
    )
    return HttpError(
        400, f"Tools cannot be offered: {why}.", param="tools", code="unsupported_parameter"
    )


def _for_template(function: FunctionDefinition) -> dict[str, Any]:
    """Whether a schema is enforced is nothing that the model needs to read."""
    described = {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
    }
    return {
        "type": "function",
        "function": {name: value for name, value in described.items() if value is not None},
    }
