"""One chat request, understood: how to read what the model says, and why its answer ended."""

from penstock.server.openai.job import Job
from penstock.server.openai.tools import Offer
from penstock.text.parsing.answer import AnswerParser
from penstock.text.parsing.reasoning import ReasoningFormat
from penstock.vocabulary.messages import FinishReason


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
