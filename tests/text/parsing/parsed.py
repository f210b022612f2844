"""Parsing a model's words in a test, and what came of it in a form that is easy to compare."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.text.parsing.answer import AnswerParser
from penstock.text.parsing.pieces import CallArguments, CallBegin, Content, Reasoning
from penstock.text.parsing.reasoning import ReasoningFormat
from penstock.text.parsing.tool_format import ToolFormat

NAMES = ("f", "g", "get_weather")


@dataclass
class Parsed:
    """What the pieces say in sum. A call is (name, arguments)."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)


def pieces_of(
    texts: Iterable[str],
    tools: ToolFormat | None = None,
    reasoning: ReasoningFormat | None = None,
    **options,
):
    """The pieces that a text, cut into `texts`, is made into: those of every text, and the last."""
    parser = AnswerParser(tools=tools, reasoning=reasoning, **{"names": NAMES, **options})
    return [parser.add(text) for text in texts] + [parser.finish()]


def parsed(
    texts: str | Iterable[str],
    tools: ToolFormat | None = None,
    reasoning: ReasoningFormat | None = None,
    **options,
) -> Parsed:
    """What a text means, whole or cut."""
    cut = [texts] if isinstance(texts, str) else texts
    result = Parsed()
    for pieces in pieces_of(cut, tools, reasoning, **options):
        for piece in pieces:
            match piece:
                case Content(text):
                    result.content += text
                case Reasoning(text):
                    result.reasoning += text
                case CallBegin(index, _, name):
                    assert index == len(result.calls)
                    result.calls.append((name, ""))
                case CallArguments(index, text):
                    assert index == len(result.calls) - 1
                    name, arguments = result.calls[index]
                    result.calls[index] = (name, arguments + text)
    return result
