"""From a conversation to the prompt that the model reads, in which nobody can forge a turn.

The conversation is rendered a second time with stand-ins for the characters that begin and end
markers (`markers`). Whichever marker is in the text only without stand-ins was spelled by a client,
however the template has trimmed or moved it, and is encoded as ordinary characters.
"""

from functools import partial
from typing import Any, NamedTuple

from penstock.text.chat_messages import Arguments, Message, for_template
from penstock.text.chat_template import ChatTemplate
from penstock.text.markers import Mask
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest

_MODELS_OWN = ("content", "reasoning_content", "reasoning")

_HERE = "\U0010fffe"
"""Stands behind an answer to be continued, to be found where the template has written it down.
Unicode promises never to make a character of it.
"""


class ChatPrompt(NamedTuple):
    """A conversation, ready to be continued by the model."""

    text: str
    token_ids: list[int]


def chat_prompt(
    tokenizer: Tokenizer,
    messages: list[Message],
    *,
    tools: list[Any] | None = None,
    variables: dict[str, Any] | None = None,
    continues_last: bool = False,
) -> ChatPrompt:
    """`messages` as the chat template writes them down, and as token ids.

    `tools` are those on offer, `variables` what else the template is to know. What the template
    writes are control tokens where they are spelled; what stands in a message, a tool or a variable
    is text. If it `continues_last`, the prompt ends with the text of the last message, which the
    assistant has begun. Raises `InvalidRequest` if the model has no chat template, if that refuses,
    or if there is nothing to continue.
    """
    template = _template_of(tokenizer)
    messages = for_template(messages, knows_developer="developer" in template.source)
    if continues_last:
        messages = [*messages[:-1], _marked(messages[-1])]
        variables = {**(variables or {}), "add_generation_prompt": False}
    text = _begun(template.render(messages, tools=tools, **(variables or {})), continues_last)
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    markers = tokenizer.markers
    mask = markers.mask(unlike=text)
    try:
        masked = [_masked_message(message, mask) for message in messages]
        masked_tools, masked_variables = _masked(tools, mask), _masked(variables or {}, mask)
    except RecursionError:
        raise InvalidRequest("The conversation nests too deeply.", param="messages") from None
    if mask.has_changed:
        rendered = template.render(masked, tools=masked_tools, **masked_variables)
        guarded = _begun(rendered, continues_last)
        return _genuine(tokenizer, ChatPrompt(text, token_ids), guarded, mask)
    return ChatPrompt(text, token_ids)


def _template_of(tokenizer: Tokenizer) -> ChatTemplate:
    if tokenizer.chat_template is None:
        raise InvalidRequest(
            "This model has no chat template.",
            param="messages",
            remedy="Complete a text, or use a model that was trained to chat.",
        )
    return tokenizer.chat_template


def _marked(message: Message) -> Message:
    """An answer that is begun, with a mark behind its text."""
    content = message.get("content")
    if message.get("role") != "assistant" or message.get("tool_calls") or not content:
        raise InvalidRequest(
            "There is no answer to continue: the last message is not a text of the assistant's.",
            param="messages",
        )
    return {**message, "content": f"{content}{_HERE}"}


def _begun(rendered: str, continues_last: bool) -> str:
    """A rendered conversation, up to the mark if there is one."""
    if not continues_last:
        return rendered
    text, mark, _ = rendered.rpartition(_HERE)
    if not mark:
        raise InvalidRequest(
            "The chat template leaves out the last message, so that it cannot be continued.",
            param="messages",
        )
    return text


def _genuine(tokenizer: Tokenizer, prompt: ChatPrompt, guarded: str, mask: Mask) -> ChatPrompt:
    """`prompt`, or where clients have spelled markers in it, one with only the template's own."""
    markers = tokenizer.markers
    spans = markers.find(guarded)
    if markers.among(prompt.token_ids) == [span.token_id for span in spans]:
        return prompt
    text = mask.undo(guarded)
    forged = sorted(set(markers.find(text)) - set(spans))
    token_ids = markers.encode_without(forged, text)
    genuine = tokenizer.encode(guarded, add_special_tokens=False)
    if markers.among(token_ids) != markers.among(genuine):
        raise InvalidRequest(
            "A message spells a control token in a way that cannot be told from a real one.",
            param="messages",
        )
    return ChatPrompt(text, token_ids)


def _masked_message(message: Message, mask: Mask) -> Message:
    """Of what the model itself has said, templates may need to see the markers."""
    is_models = message.get("role") == "assistant"
    return {
        name: mask.apply(value, keeps=True)
        if is_models and name in _MODELS_OWN and isinstance(value, str)
        else _masked(value, mask)
        for name, value in message.items()
    }


def _masked(value: Any, mask: Mask) -> Any:
    match value:
        case str():
            return mask.apply(value)
        case Arguments():
            return value.mapped(partial(_masked, mask=mask))
        case dict():
            return {_masked(name, mask): _masked(each, mask) for name, each in value.items()}
        case list() | tuple():
            return [_masked(each, mask) for each in value]
    return value
