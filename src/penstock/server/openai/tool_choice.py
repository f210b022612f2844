"""Holding the model to the calls that a request allows or demands."""

from penstock.server.errors import HttpError
from penstock.server.openai.tools import Offer
from penstock.text.parsing.choice import Formats
from penstock.text.parsing.tool_grammar import CallableTool, ToolGrammar, tool_grammar
from penstock.vocabulary.sampling_params import SamplingParams


def held_to(
    offer: Offer,
    params: SamplingParams,
    *,
    formats: Formats,
    prompt: str,
) -> SamplingParams:
    """`params` under which every call is valid that `offer` wants to be, and is made if it must.

    Thoughts that `prompt` has begun come first, and are free.
    """
    if offer.format is None:
        return params
    reasoning = formats.reasoning
    is_thinking = reasoning is not None and reasoning.is_opened_by(prompt)
    grammar = tool_grammar(
        [
            CallableTool(tool.function.name, tool.function.parameters, bool(tool.function.strict))
            for tool in offer.tools
            if tool.function.name in offer.names
        ],
        offer.format,
        must_call=offer.must_call,
        max_calls=offer.max_calls,
        template_source=formats.template_source,
        after=reasoning.close if reasoning is not None and is_thinking else "",
    )
    return params if grammar is None else _constrained(params, grammar)


def _constrained(params: SamplingParams, grammar: ToolGrammar) -> SamplingParams:
    """`params` under which the text follows `grammar`."""
    raise HttpError(
        400,
        "This server cannot yet make sure that a tool is called, nor that arguments follow their "
        "schema. Use tool_choice auto or none, and tools that are not strict.",
        param="tool_choice",
        code="unsupported_parameter",
    )
