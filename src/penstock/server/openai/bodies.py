"""Request bodies: what each endpoint takes of its own, and the sampling options beside it."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from penstock.server.decoding import converted
from penstock.server.openai.fields import IGNORED, REFUSED, drop_foreign
from penstock.server.openai.structured import StructuredFields, grammar_of
from penstock.server.openai.tools import MAX_TOOLS, PastCall, Tool, ToolChoice
from penstock.server.sse import UsageEvents
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import (
    MAX_LOGPROBS,
    MAX_SAMPLES,
    SamplingParams,
    sampling_params_from,
)

MAX_MESSAGES = 8192


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream."""

    include_usage: Annotated[
        bool | None, Meta(description="Send the token counts in a last event.")
    ] = None
    continuous_usage_stats: Annotated[
        bool | None,
        Meta(description="With include_usage: send the token counts so far in every event."),
    ] = None
    include_obfuscation: Annotated[
        bool | None, Meta(description="Accepted and ignored: events are not padded here.")
    ] = None


TokenId = Annotated[int, Meta(ge=0)]
Texts = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(description="A text, its token ids, or a list of either."),
]
Truncation = Annotated[
    Annotated[int, Meta(ge=-1)] | None,
    Meta(description="Keep this many tokens of the prompt's end; -1: as many as fit."),
]
AddSpecialTokens = Annotated[
    bool, Meta(description="Put the tokenizer's special tokens around a text.")
]
ModelName = Annotated[
    str | None, Meta(description="The served model's name, as /v1/models tells it.")
]
Priority = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, description="Lower is served earlier.")]
CacheSalt = Annotated[
    Annotated[str, Meta(min_length=1, max_length=256)] | None,
    Meta(description="Share cached prefixes only with requests of the same salt."),
]


class GenerationBody(StructuredFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every endpoint that generates text takes beside the sampling options."""

    model: ModelName = None
    stream: Annotated[bool, Meta(description="Answer with server-sent events.")] = False
    stream_options: Annotated[
        StreamOptions | None, Meta(description="Only together with stream.")
    ] = None
    priority: Priority = 0
    cache_salt: CacheSalt = None
    truncate_prompt_tokens: Truncation = None
    use_beam_search: Annotated[
        bool,
        Meta(description="Answer the n best of n (or best_of) beams; not streamed."),
    ] = False
    length_penalty: Annotated[
        float,
        Meta(
            ge=-10,
            le=10,
            description="Beams are compared by their log probability over length ** this.",
        ),
    ] = 1.0
    early_stopping: Annotated[
        bool | Literal["never"],
        Meta(
            description="Whether a beam search ends once enough beams have; never: it ends when "
            "nothing better can come."
        ),
    ] = False
    return_token_ids: Annotated[
        bool, Meta(description="Report the token ids of prompt and answer, too.")
    ] = False
    return_tokens_as_token_ids: Annotated[
        bool, Meta(description="Name tokens token_id:ID in log probabilities.")
    ] = False

    @property
    def usage_events(self) -> UsageEvents:
        """Which events of a stream tell the token counts."""
        asked = self.stream_options
        if asked is None or not asked.include_usage:
            return "none"
        return "all" if asked.continuous_usage_stats else "last"


class CompletionBody(GenerationBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/completions, without the sampling options."""

    prompt: Texts
    echo: Annotated[bool, Meta(description="Begin the answer with the prompt.")] = False
    best_of: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SAMPLES)] | None,
        Meta(description="Draw this many and answer the n likeliest, per token; not streamed."),
    ] = None
    add_special_tokens: AddSpecialTokens = True


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message of a conversation. What is neither null nor empty reaches the chat template.

    `reasoning` is another name of `reasoning_content`.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: dict[str, Any] | None = None

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it."""
        message: dict[str, Any] = {"content": None, **msgspec.to_builtins(self)}
        if self.tool_calls is not None:
            message["tool_calls"] = [call.for_template() for call in self.tool_calls]
        reasoning = message.pop("reasoning", None)
        if reasoning is not None:
            message.setdefault("reasoning_content", reasoning)
        return message


Messages = Annotated[
    list[ChatMessage],
    Meta(min_length=1, max_length=MAX_MESSAGES, description="The conversation so far."),
]
TemplateVariables = Annotated[
    dict[str, Any] | None,
    Meta(description="Variables of the chat template, such as enable_thinking."),
]
AddGenerationPrompt = Annotated[
    bool, Meta(description="Have the template begin the answer's turn behind the conversation.")
]
ContinueFinalMessage = Annotated[
    bool,
    Meta(description="Go on with the last message, an answer that the client has begun."),
]
Tools = Annotated[
    Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None,
    Meta(description="Functions that the model may call."),
]


class ChatBody(GenerationBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/chat/completions, without the sampling options."""

    messages: Messages
    max_completion_tokens: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most tokens to generate; by default the rest of the context."),
    ] = None
    logprobs: Annotated[bool, Meta(description="Report each token's log probability.")] = False
    top_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None,
        Meta(description="And those of this many likeliest tokens; needs logprobs."),
    ] = None
    chat_template_kwargs: TemplateVariables = None
    add_generation_prompt: AddGenerationPrompt = True
    continue_final_message: ContinueFinalMessage = False
    add_special_tokens: Annotated[
        bool,
        Meta(description="Put special tokens around what the chat template has written."),
    ] = False
    tools: Tools = None
    tool_choice: Annotated[
        ToolChoice | None,
        Meta(description="auto: as the model likes; none; required: at least one; or which one."),
    ] = None
    parallel_tool_calls: Annotated[
        bool, Meta(description="Whether one answer may make several calls.")
    ] = True


Body = TypeVar("Body", bound=GenerationBody)


def decode_body(
    values: dict[str, Any], kind: type[Body], defaults: dict[str, Any]
) -> tuple[Body, SamplingParams]:
    """An endpoint's own fields, and the sampling options beside them: those given, else `defaults`.

    Raises `InvalidRequest`, naming the field.
    """
    own = kind.__struct_fields__
    values = drop_foreign(values)
    others = {name: value for name, value in values.items() if name not in own}
    unset = {name for name, value in others.items() if value is None and name in defaults}
    options = {**defaults, **{name: others[name] for name in others.keys() - unset}}
    params = sampling_params_from(options, also_known=[*own, *IGNORED, *REFUSED])
    body = converted({name: values[name] for name in own if name in values}, kind)
    params = msgspec.structs.replace(params, grammar=grammar_of(body, params.grammar))
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest(
            "stream_options is only allowed when stream is true.", param="stream_options"
        )
    if body.stream and params.prompt_logprobs is not None:
        raise InvalidRequest(
            "prompt_logprobs cannot be streamed.", param="prompt_logprobs", remedy="Use echo."
        )
    return body, params
