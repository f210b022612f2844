"""What the model says as output items of /v1/responses, one after the other, with their events."""

import secrets
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from penstock.server.openai.logprobs import TokenLogprob
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Reasoning

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class ReasoningText(msgspec.Struct, tag="reasoning_text"):
    """What the model thought."""

    text: str


class OutputMessage(msgspec.Struct, kw_only=True, tag="message"):
    """What the model says."""

    id: str
    status: Status
    role: Literal["assistant"] = "assistant"
    content: list[OutputText] = msgspec.field(default_factory=list)


class OutputReasoning(msgspec.Struct, kw_only=True, tag="reasoning"):
    """What it thought before. There is no summary: the whole is told."""

    id: str
    status: Status
    summary: list[Any] = []
    content: list[ReasoningText] = msgspec.field(default_factory=list)


class OutputCall(msgspec.Struct, kw_only=True, tag="function_call"):
    """A call. The arguments are JSON as the model wrote it, which may be malformed."""

    id: str
    call_id: str
    name: str
    status: Status
    arguments: str = ""


OutputItem = OutputMessage | OutputReasoning | OutputCall
Event = tuple[str, dict[str, Any]]
"""An event's type, and its fields but for the sequence number."""


class Output:
    """The items so far. What changes them is told in events, for a stream to pass on."""

    def __init__(self) -> None:
        self.items: list[OutputItem] = []
        self._is_open = False
        self._untold: list[TokenLogprob] = []

    def add(self, pieces: list[Piece], logprobs: list[TokenLogprob]) -> Iterator[Event]:
        """Take in what is certain, and the `logprobs` of a step's tokens, for the next text."""
        self._untold += logprobs
        for piece in pieces:
            match piece:
                case Content(text):
                    yield from self._opened(OutputMessage)
                    yield from self._said(text)
                case Reasoning(text):
                    yield from self._opened(OutputReasoning)
                    yield from self._thought(text)
                case CallBegin(_, call_id, name):
                    yield from self._begun(
                        OutputCall(id=_id("fc"), call_id=call_id, name=name, status="in_progress")
                    )
                case CallArguments(_, text):
                    yield from self._called(text)

    def close(self, status: Status) -> Iterator[Event]:
        """End the item that is open, if one is."""
        if not self._is_open:
            return
        self._is_open = False
        item = self.items[-1]
        match item:
            case OutputMessage(content=[part]):
                told = {"text": part.text, "logprobs": part.logprobs}
                yield self._event("response.output_text.done", content_index=0, **told)
                yield self._event("response.content_part.done", content_index=0, part=part)
            case OutputReasoning(content=[thoughts]):
                text = thoughts.text
                yield self._event("response.reasoning_text.done", content_index=0, text=text)
                yield self._event("response.content_part.done", content_index=0, part=thoughts)
            case OutputCall(arguments=arguments, name=name):
                told = {"arguments": arguments, "name": name}
                yield self._event("response.function_call_arguments.done", **told)
        item.status = status
        yield self._item_event("done")

    def _opened(self, kind: type[OutputMessage] | type[OutputReasoning]) -> Iterator[Event]:
        """Have an item of this kind to add to."""
        if self._is_open and isinstance(self.items[-1], kind):
            return
        yield from self._begun(
            OutputMessage(id=_id("msg"), status="in_progress")
            if kind is OutputMessage
            else OutputReasoning(id=_id("rs"), status="in_progress")
        )

    def _begun(self, item: OutputItem) -> Iterator[Event]:
        yield from self.close("completed")
        self.items.append(item)
        self._is_open = True
        yield self._item_event("added")
        if isinstance(item, OutputCall):
            return
        part = OutputText("") if isinstance(item, OutputMessage) else ReasoningText("")
        yield self._event("response.content_part.added", content_index=0, part=part)
        item.content.append(part)  # type: ignore[arg-type]

    def _said(self, text: str) -> Iterator[Event]:
        item = self.items[-1]
        assert isinstance(item, OutputMessage)
        item.content[0].text += text
        logprobs, self._untold = self._untold, []
        item.content[0].logprobs += logprobs
        told = {"delta": text, "logprobs": logprobs}
        yield self._event("response.output_text.delta", content_index=0, **told)

    def _thought(self, text: str) -> Iterator[Event]:
        self._untold = []
        item = self.items[-1]
        assert isinstance(item, OutputReasoning)
        item.content[0].text += text
        yield self._event("response.reasoning_text.delta", content_index=0, delta=text)

    def _called(self, text: str) -> Iterator[Event]:
        self._untold = []
        item = self.items[-1]
        assert isinstance(item, OutputCall)
        item.arguments += text
        yield self._event("response.function_call_arguments.delta", delta=text)

    def _event(self, name: str, /, **fields: Any) -> Event:
        place = {"item_id": self.items[-1].id, "output_index": len(self.items) - 1}
        return name, {**place, **fields}

    def _item_event(self, what: str) -> Event:
        place = {"output_index": len(self.items) - 1}
        return f"response.output_item.{what}", {**place, "item": self.items[-1]}


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
