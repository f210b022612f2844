"""Request bodies of Anthropic's Messages API."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from penstock.server.openai.bodies import MAX_MESSAGES
from penstock.server.openai.tools import MAX_TOOLS
from penstock.vocabulary.sampling_params import MAX_STOP_STRINGS, StopString

CacheControl = dict[str, Any] | None
ToolUseName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$(?!\n)")]


class TextBlock(msgspec.Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """Text. `cache_control` and `citations` say nothing here."""

    text: str
    cache_control: CacheControl = None
    citations: list[Any] | None = None


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking", forbid_unknown_fields=True):
    """What the model thought in an earlier answer. Nothing is signed here."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(
    msgspec.Struct, frozen=True, tag="redacted_thinking", forbid_unknown_fields=True
):
    """Thoughts that only Anthropic could read; they are left out."""

    data: str


class ToolUseBlock(
    msgspec.Struct, frozen=True, kw_only=True, tag="tool_use", forbid_unknown_fields=True
):
    """A call that the model has made."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl = None
    caller: dict[str, Any] | None = None


class ToolResultBlock(
    msgspec.Struct, frozen=True, kw_only=True, tag="tool_result", forbid_unknown_fields=True
):
    """What came of a call. The model reads "Error: " before what `is_error`."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: CacheControl = None


class UserMessage(
    msgspec.Struct, frozen=True, tag="user", tag_field="role", forbid_unknown_fields=True
):
    """What the user says, and what came of calls."""

    content: str | Annotated[list[TextBlock | ToolResultBlock], Meta(min_length=1)]


class AssistantMessage(
    msgspec.Struct, frozen=True, tag="assistant", tag_field="role", forbid_unknown_fields=True
):
    """An earlier answer."""

    content: str | list[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock]


class SystemMessage(
    msgspec.Struct, frozen=True, tag="system", tag_field="role", forbid_unknown_fields=True
):
    """Instructions in the midst of a conversation."""

    content: str | list[TextBlock]


Message = UserMessage | AssistantMessage | SystemMessage


class ClientTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the client runs."""

    name: ToolUseName
    input_schema: Annotated[dict[str, Any], Meta(description="A JSON schema of the input.")]
    description: str | None = None
    type: Annotated[
        Literal["custom"] | None,
        Meta(description="Tools that run at Anthropic are not to be had here."),
    ] = None
    strict: Annotated[bool | None, Meta(description="Input must follow the schema exactly.")] = None
    cache_control: CacheControl = None
    eager_input_streaming: bool | None = None


class AutoChoice(msgspec.Struct, frozen=True, tag="auto", forbid_unknown_fields=True):
    """The model may call tools."""

    disable_parallel_tool_use: bool = False


class AnyChoice(msgspec.Struct, frozen=True, tag="any", forbid_unknown_fields=True):
    """The model must call a tool."""

    disable_parallel_tool_use: bool = False


class OneChoice(msgspec.Struct, frozen=True, tag="tool", forbid_unknown_fields=True):
    """The model must call this tool."""

    name: ToolUseName
    disable_parallel_tool_use: bool = False


class NoChoice(msgspec.Struct, frozen=True, tag="none", forbid_unknown_fields=True):
    """The model must call no tool."""


class ThinkingEnabled(msgspec.Struct, frozen=True, tag="enabled", forbid_unknown_fields=True):
    """The model is to think. How long it does is its own affair."""

    budget_tokens: Annotated[int, Meta(ge=1)]
    display: Literal["summarized"] | None = None


class ThinkingAdaptive(msgspec.Struct, frozen=True, tag="adaptive", forbid_unknown_fields=True):
    """The model may think as much as it likes."""

    display: Literal["summarized"] | None = None


class ThinkingDisabled(msgspec.Struct, frozen=True, tag="disabled", forbid_unknown_fields=True):
    """The model is not to think."""


class JsonOutput(msgspec.Struct, frozen=True, tag="json_schema", forbid_unknown_fields=True):
    """JSON that validates against a schema."""

    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must look like."""

    format: JsonOutput | None = None
    effort: Annotated[
        Literal["high"] | None, Meta(description="Only Anthropic's default, which says nothing.")
    ] = None


class KeptThinking(
    msgspec.Struct, frozen=True, tag="clear_thinking_20251015", forbid_unknown_fields=True
):
    """Which earlier thoughts stay in the conversation."""

    keep: Literal["all"]


class ContextManagement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to leave out of a conversation. Nothing is left out here."""

    edits: list[KeptThinking] = []


class ConversationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/messages/count_tokens."""

    model: Annotated[str, Meta(description="The served model's name, as /v1/models tells it.")]
    messages: Annotated[
        list[Message],
        Meta(min_length=1, max_length=MAX_MESSAGES, description="The conversation so far."),
    ]
    system: Annotated[
        str | list[TextBlock] | None, Meta(description="Instructions before the conversation.")
    ] = None
    tools: Annotated[
        Annotated[list[ClientTool], Meta(max_length=MAX_TOOLS)] | None,
        Meta(description="Functions that the model may call."),
    ] = None
    tool_choice: Annotated[
        AutoChoice | AnyChoice | OneChoice | NoChoice | None,
        Meta(description="auto: as the model likes; any: at least one; tool: this one; none."),
    ] = None
    thinking: Annotated[
        ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None,
        Meta(description="Sets enable_thinking, a variable of some chat templates."),
    ] = None
    output_config: Annotated[
        OutputConfig | None, Meta(description="What the answer must look like.")
    ] = None
    context_management: Annotated[
        ContextManagement | None,
        Meta(description="Only what keeps all: nothing is left out of a conversation here."),
    ] = None
    cache_control: Annotated[
        CacheControl,
        Meta(description="Accepted without effect: whatever has been computed is kept anyway."),
    ] = None


class MessagesBody(ConversationBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/messages."""

    max_tokens: Annotated[
        int, Meta(ge=1, description="Most tokens to generate; the context may hold fewer.")
    ]
    stop_sequences: Annotated[
        Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)] | None,
        Meta(description="The answer ends where it contains one of these."),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Divides the logits; 0 takes the likeliest token."),
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Keep the likeliest tokens whose probabilities sum to this."),
    ] = None
    top_k: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Keep only the k likeliest tokens.")
    ] = None
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False
    metadata: Annotated[
        dict[str, Any] | None,
        Meta(description="Accepted without effect: names the end user to Anthropic."),
    ] = None
    service_tier: Annotated[
        str | None, Meta(description="Accepted without effect: chooses a price.")
    ] = None
