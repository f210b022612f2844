"""Streamed answers of /v1/chat/completions."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from penstock.server.generations import Generations
from penstock.server.openai.chat_job import ChatJob
from penstock.server.openai.job import SYSTEM_FINGERPRINT, Usage, token_ids_part
from penstock.server.openai.logprobs import chat_logprobs
from penstock.server.sse import EventTemplate, json_part, json_text
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Reasoning
from penstock.vocabulary.results import Delta


async def chat_events(job: ChatJob, generations: Generations) -> AsyncGenerator[bytes]:
    """The answer as it comes: for each choice its role, its pieces, and why it ended."""
    head: dict[str, object] = {
        "id": job.id,
        "object": "chat.completion.chunk",
        "created": job.created,
        "model": job.model,
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }
    usage = Usage.of_prompts(job.prompts)
    template = EventTemplate(head, usage, job.usage_events)
    if job.returns_token_ids:
        head["prompt_token_ids"] = job.prompts[0].token_ids
    opening = EventTemplate(head, usage, job.usage_events)
    choices: dict[int, _Choice] = {}
    async with aclosing(generations.arrivals()) as arrivals:
        async for _, delta in arrivals:
            usage.add(delta)
            if delta.index not in choices:
                choices[delta.index] = _Choice(job, opening, template, delta.index)
            for event in choices[delta.index].events(delta):
                yield event
    yield template.end()


class _Choice:
    """Renders the deltas of one choice. Its first event tells the role.

    OpenAI's own clients tell by that event's content, a text or null, whether there is to be any.
    So where the answer may be something else, the event waits for the first piece.
    """

    def __init__(
        self, job: ChatJob, opening: EventTemplate, template: EventTemplate, index: int
    ) -> None:
        self._job = job
        self._opening_template = opening
        self._template = template
        self._head = b'{"index":%d,"delta":' % index
        self._parser = job.parser()
        self._is_open = False

    def events(self, delta: Delta) -> Iterator[bytes]:
        pieces = self._parser.add(delta.text)
        if delta.finish_reason is not None:
            pieces += self._parser.finish()
        token_ids = delta.token_ids if self._job.returns_token_ids else []
        if (delta.logprobs or token_ids) and not pieces:
            pieces = [Content("")]
        if not self._is_open and (pieces or delta.finish_reason or not self._job.is_parsed):
            self._is_open = True
            yield self._opening(pieces)
        logprobs = self._logprobs(delta)
        end = b',"finish_reason":null%b}' % token_ids_part(token_ids)
        for piece in pieces:
            yield self._template.choice(self._head, _delta(piece), b',"logprobs":', logprobs, end)
            logprobs, end = b"null", b',"finish_reason":null}'
        if delta.finish_reason is not None:
            reason = self._job.finish_reason(delta.finish_reason.value, self._parser.num_calls)
            yield self._template.choice(
                self._head,
                b'{},"logprobs":null,"finish_reason":"',
                reason.encode(),
                b'","stop_reason":',
                json_part(delta.stop_reason),
                b"}",
            )

    def _opening(self, pieces: list[Piece]) -> bytes:
        has_content = not pieces or isinstance(pieces[0], Content)
        return self._opening_template.choice(
            self._head,
            b'{"role":"assistant","content":',
            b'""' if has_content else b"null",
            b',"refusal":null},"logprobs":null,"finish_reason":null}',
        )

    def _logprobs(self, delta: Delta) -> bytes:
        if self._job.params.logprobs is None:
            return b"null"
        return json_part(
            chat_logprobs(delta.logprobs, self._job.params.logprobs, self._job.token_texts)
        )


def _delta(piece: Piece) -> bytes:
    match piece:
        case Content(text):
            return b'{"content":%b}' % json_text(text)
        case Reasoning(text):
            return b'{"reasoning_content":%b,"reasoning":%b}' % ((json_text(text),) * 2)
        case CallBegin(index, id_, name):
            return (
                b'{"tool_calls":[{"index":%d,"id":%b,"type":"function",'
                b'"function":{"name":%b,"arguments":""}}]}'
                % (index, json_text(id_), json_text(name))
            )
        case CallArguments(index, text):
            return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (
                index,
                json_text(text),
            )
