"""Streamed answers of /v1/messages."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from penstock.server.anthropic.answer import (
    AnswerText,
    AnswerThinking,
    AnswerToolUse,
    Block,
    MessageJob,
    MessageUsage,
)
from penstock.server.generations import Generations
from penstock.server.openai.job import Usage
from penstock.server.sse import json_part, json_text
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Reasoning

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"%b","%b":%b}}\n\n'
)


async def message_events(job: MessageJob, generations: Generations) -> AsyncGenerator[bytes]:
    """The answer as it comes: its head, its blocks one after the other, and why it ended."""
    usage = Usage.of_prompts(job.chat.prompts)
    parser = job.chat.parser()
    blocks = _Blocks()
    is_open = False
    async with aclosing(generations.arrivals()) as arrivals:
        async for _, delta in arrivals:
            if not is_open:
                is_open = True
                usage.prompt_tokens_details.cached_tokens = delta.num_cached or 0
                start = job.message([], usage, ending=(None, None))
                yield _event("message_start", {"message": start})
                yield _PING
            usage.completion_tokens += len(delta.token_ids)
            pieces = parser.add(delta.text)
            if delta.finish_reason is not None:
                pieces += parser.finish()
            for event in blocks.events(pieces):
                yield event
            if delta.finish_reason is not None:
                if end := blocks.close():
                    yield end
                reason, sequence = job.ending(
                    delta.finish_reason.value, delta.stop_reason, parser.num_calls
                )
                ending = {"stop_reason": reason, "stop_sequence": sequence}
                yield _event("message_delta", {"delta": ending, "usage": MessageUsage.of(usage)})
    yield _STOP


class _Blocks:
    """Renders pieces as content blocks, of which one at a time is open."""

    def __init__(self) -> None:
        self._num_blocks = 0
        self._open: type[Block] | None = None

    def events(self, pieces: list[Piece]) -> Iterator[bytes]:
        for piece in pieces:
            match piece:
                case Content(text):
                    yield from self._within(AnswerText(""))
                    yield self._delta(b"text_delta", b"text", text)
                case Reasoning(text):
                    yield from self._within(AnswerThinking(""))
                    yield self._delta(b"thinking_delta", b"thinking", text)
                case CallBegin(_, id_, name):
                    yield from self._begun(AnswerToolUse(id_, name))
                case CallArguments(_, text):
                    yield self._delta(b"input_json_delta", b"partial_json", text)

    def close(self) -> bytes:
        """The end of the block that is open, if one is."""
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", {"index": self._num_blocks - 1})

    def _within(self, block: Block) -> Iterator[bytes]:
        if self._open is not type(block):
            yield from self._begun(block)

    def _begun(self, block: Block) -> Iterator[bytes]:
        if self._open is not None:
            yield self.close()
        self._open = type(block)
        yield _event("content_block_start", {"index": self._num_blocks, "content_block": block})
        self._num_blocks += 1

    def _delta(self, kind: bytes, field: bytes, text: str) -> bytes:
        return _DELTA % (self._num_blocks - 1, kind, field, json_text(text))


def _event(name: str, fields: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json_part({"type": name, **fields}))
