"""One chat request, understood: how to read what the model says, and why its answer ended."""

import time
import uuid

from penstock.server.front import Front
from penstock.server.openai.bodies import ChatBody
from penstock.server.openai.job import Job
from penstock.server.openai.prompts import conversation, truncated
from penstock.server.openai.tool_choice import held_to
from penstock.server.openai.tools import Offer, offer
from penstock.server.prompts import fitted
from penstock.text.parsing.answer import AnswerParser
from penstock.text.parsing.reasoning import ReasoningFormat
from penstock.text.parsing.tool_format import ToolFormat
from penstock.text.tokenizer import Tokenizer
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.messages import FinishReason
from penstock.vocabulary.sampling_params import SamplingParams


class ChatJob(Job, frozen=True, kw_only=True):
    """A job whose answers may hold thoughts and tool calls."""

    offer: Offer
    reasoning: ReasoningFormat | None

    @property
    def is_parsed(self) -> bool:
        """Whether an answer can be anything else than plain text."""
        return self.offer.format is not None or self.reasoning is not None

    def parser(self) -> AnswerParser:
        """A parser for one of the answers."""
        return AnswerParser(
            reasoning=self.reasoning,
            tools=self.offer.format,
            names=self.offer.names,
            max_calls=self.offer.max_calls,
            prompt=self.prompts[0].text or "",
        )

    def finish_reason(self, reason: str, num_calls: int) -> str:
        """OpenAI's word for it. A call that the client has named itself is no reason."""
        if reason == FinishReason.STOP.value and num_calls and self.offer.named is None:
            return "tool_calls"
        return reason


async def understood(
    front: Front,
    body: ChatBody,
    params: SamplingParams,
    *,
    id_prefix: str,
    max_tokens_given: bool,
) -> ChatJob:
    """The job of a conversation, in which the model is held to what it may and must call.

    Without `max_tokens_given`, `params.max_tokens` is cut to what the context still holds.
    Raises `InvalidRequest` or `HttpError` for what cannot be answered.
    """
    formats, tokenizer = front.formats, front.llm.tokenizer
    offered = offer(
        body.tools, body.tool_choice, parallel=body.parallel_tool_calls, formats=formats
    )
    whole = await conversation(body, offered.for_template(), tokenizer)
    max_tokens = params.max_tokens if max_tokens_given else None
    (kept,) = truncated([whole], body.truncate_prompt_tokens, front.llm, max_tokens=max_tokens)
    prompt = whole._replace(token_ids=kept.token_ids)  # its text's end is what a parser asks for
    params = held_to(offered, params, formats=formats, prompt=prompt.text or "")
    if body.continue_final_message:
        _check_free(params)
    return ChatJob(
        id=f"{id_prefix}{uuid.uuid4().hex}",
        created=int(time.time()),
        model=front.model_name,
        prompts=[prompt],
        params=fitted(params, [prompt], front.llm, field="messages", is_given=max_tokens_given),
        tokenizer=tokenizer,
        usage_events=body.usage_events,
        shown_token_ids=_tag_ids(tokenizer, offered.format, formats.reasoning),
        returns_token_ids=body.return_token_ids,
        tokens_as_ids=body.return_tokens_as_token_ids,
        offer=offered,
        reasoning=formats.reasoning,
    )


def _check_free(params: SamplingParams) -> None:
    """A grammar would begin anew behind what the client has begun."""
    if params.grammar is not None:
        raise InvalidRequest(
            f"An answer that is begun cannot be held to {params.grammar.param}.",
            param=params.grammar.param,
            remedy="Let the model begin it.",
        )


def _tag_ids(
    tokenizer: Tokenizer, tools: ToolFormat | None, reasoning: ReasoningFormat | None
) -> frozenset[int]:
    """The special tokens that the answer's parser looks for."""
    tags = {tag for format in (tools, reasoning) if format is not None for tag in format.tags}
    special_tokens = tokenizer.special_tokens
    return frozenset(special_tokens[tag] for tag in tags & special_tokens.keys())
