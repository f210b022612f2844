"""Whole answers of /v1/chat/completions."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from penstock.server.answers import rendered
from penstock.server.generations import Generations
from penstock.server.openai.chat_job import ChatJob
from penstock.server.openai.job import SYSTEM_FINGERPRINT, Usage, collected
from penstock.server.openai.logprobs import (
    ChatLogprobs,
    PromptLogprob,
    chat_logprobs,
    prompt_logprobs,
)
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Piece, Reasoning
from penstock.vocabulary.results import CompletionOutput, RequestOutput


class AnswerFunction(msgspec.Struct):
    """What is called. The arguments are JSON as the model wrote it, which may be malformed."""

    name: str
    arguments: str = ""


class AnswerCall(msgspec.Struct):
    """A tool call."""

    id: str
    function: AnswerFunction
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct, kw_only=True):
    """What the model says. `content` is null if it only thinks or calls tools.

    `reasoning` is another name of `reasoning_content`, what it thought before; there if it did.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    tool_calls: list[AnswerCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET

    @property
    def num_calls(self) -> int:
        return 0 if self.tool_calls is UNSET else len(self.tool_calls)


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers. `stop_reason` is the stop string or token that ended it, if one did."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. What has no null is there if asked for."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = SYSTEM_FINGERPRINT
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


async def chat_document(job: ChatJob, generations: Generations) -> bytes:
    """The whole answer as JSON."""
    outputs, usage = await collected(generations.arrivals(), job)
    return await rendered(lambda: chat_json(job, outputs, usage), outputs)


def chat_json(job: ChatJob, outputs: list[RequestOutput], usage: Usage) -> bytes:
    """What came of the conversation as one answer."""
    (output,) = outputs
    return msgspec.json.encode(
        ChatCompletion(
            id=job.id,
            created=job.created,
            model=job.model,
            choices=[_choice(completion, job) for completion in output.outputs],
            usage=usage,
            prompt_logprobs=UNSET
            if output.prompt_logprobs is None
            else prompt_logprobs(output.prompt_logprobs, job.tokenizer),
            prompt_token_ids=output.prompt_token_ids if job.returns_token_ids else UNSET,
        )
    )


def _choice(output: CompletionOutput, job: ChatJob) -> ChatChoice:
    parser = job.parser()
    message = _message(parser.add(output.text) + parser.finish())
    num_top = job.params.logprobs or 0
    return ChatChoice(
        index=output.index,
        message=message,
        logprobs=None
        if output.logprobs is None
        else chat_logprobs(output.logprobs, num_top, job.token_texts),
        finish_reason=job.finish_reason(output.finish_reason or "", message.num_calls),
        stop_reason=output.stop_reason,
        token_ids=output.token_ids if job.returns_token_ids else UNSET,
    )


def _message(pieces: list[Piece]) -> AnswerMessage:
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[AnswerCall] = []
    for piece in pieces:
        match piece:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegin(_, id_, name):
                calls.append(AnswerCall(id_, AnswerFunction(name)))
            case CallArguments(index, text):
                calls[index].function.arguments += text
    message = AnswerMessage(content="".join(content) or None)
    if calls:
        message.tool_calls = calls
    if reasoning:
        message.reasoning_content = message.reasoning = "".join(reasoning)
    if not pieces:
        message.content = ""
    return message
