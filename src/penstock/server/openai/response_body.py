"""The body of /v1/responses."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.server.errors import HttpError
from penstock.server.openai.bodies import CacheSalt, ModelName, Priority
from penstock.server.openai.fields import IGNORED, drop_foreign
from penstock.server.openai.structured import JsonObjectFormat, Schema, TextFormat
from penstock.server.openai.tools import MAX_TOOLS, ToolName
from penstock.vocabulary.sampling_params import MAX_LOGPROBS

MAX_ITEMS = 8192

_STATELESS = "nothing is stored here; send the earlier items again, in input"
REFUSED_IN_RESPONSES: dict[str, tuple[tuple[Any, ...], str]] = {
    "background": ((False,), "nothing is stored here that could be fetched later"),
    "context_management": (([],), "nothing is left out of a conversation here"),
    "conversation": ((), _STATELESS),
    "max_tool_calls": ((), "this server runs no tools, so that it has none to count"),
    "previous_response_id": ((), _STATELESS),
    "prompt": ((), "templates of prompts are kept at OpenAI, not here"),
    "truncation": (("disabled",), "nothing is left out of a conversation here"),
}
"""Of the fields of /v1/responses: values that ask for nothing, and why others are refused."""


class ResponseSchemaFormat(
    msgspec.Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True
):
    """JSON that validates against a schema. Schemas are enforced whether `strict` or not."""

    schema: Schema
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the text must look like."""

    format: TextFormat | JsonObjectFormat | ResponseSchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to think: as the model does. Thoughts are told whole, whatever `summary` is asked for."""

    effort: Literal["none"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function that the client runs."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one function to call."""

    type: Literal["function"]
    name: ToolName


class ResponseStreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream."""

    include_obfuscation: Annotated[
        bool | None, Meta(description="Accepted and ignored: events are not padded here.")
    ] = None


Include = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class ResponsesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/responses, without the fields that ask for nothing here."""

    input: Annotated[
        str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_ITEMS)],
        Meta(description="A text, or the items of the conversation so far."),
    ]
    model: ModelName = None
    instructions: Annotated[
        str | None, Meta(description="A system message before the conversation.")
    ] = None
    tools: Annotated[
        Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)],
        Meta(description="Functions that the model may call; there are no built-in tools."),
    ] = []
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponseToolName,
        Meta(description="auto: as the model likes; none; required: at least one; or which one."),
    ] = "auto"
    parallel_tool_calls: Annotated[
        bool, Meta(description="Whether one answer may make several calls.")
    ] = True
    text: Annotated[TextConfig, Meta(description="What the text must look like.")] = TextConfig()
    reasoning: Annotated[
        ReasoningConfig, Meta(description="Thoughts are told whole; there is no other choice.")
    ] = ReasoningConfig()
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most tokens to generate; by default the rest of the context."),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="Divides the logits; 0 takes the likeliest token."),
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Keep the likeliest tokens whose probabilities sum to this."),
    ] = None
    top_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)],
        Meta(description="Report the log probabilities of this many likeliest tokens."),
    ] = 0
    include: Annotated[
        list[Include],
        Meta(description="message.output_text.logprobs; thoughts are never encrypted."),
    ] = []
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False
    stream_options: Annotated[
        ResponseStreamOptions | None, Meta(description="Only together with stream.")
    ] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="Sent back with the answer.")] = (
        None
    )
    priority: Priority = 0
    cache_salt: CacheSalt = None


def own_fields(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without what asks for nothing. Raises `HttpError` for what cannot be had here."""
    for name, (harmless, why) in REFUSED_IN_RESPONSES.items():
        value = values.get(name)
        if value is not None and value not in harmless:
            raise HttpError(
                400,
                f"{name} is not supported by this server: {why}.",
                param=name,
                code="unsupported_parameter",
            )
    rest = {name: value for name, value in values.items() if name not in REFUSED_IN_RESPONSES}
    ours = ResponsesBody.__struct_fields__
    kept = {name: value for name, value in rest.items() if name in ours and name in IGNORED}
    return {**drop_foreign(rest), **kept}
