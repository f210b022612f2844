"""Holding the model to the calls that a request allows or demands."""

import msgspec

from penstock.server.openai.tools import Offer
from penstock.text.parsing.choice import Formats
from penstock.text.parsing.tool_grammar import CallableTool, ToolGrammar, tool_grammar
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.grammar import Grammar
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
    reasoning = formats.reasoning
    is_thinking = reasoning is not None and reasoning.is_opened_by(prompt)
    after = reasoning.close if reasoning is not None and is_thinking else ""
    params = _behind_thoughts(params, after)
    if offer.format is None:
        return params
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
        after=after,
    )
    return params if grammar is None else _constrained(params, grammar)


def _constrained(params: SamplingParams, grammar: ToolGrammar) -> SamplingParams:
    """`params` under which the text follows `grammar`."""
    if params.grammar is not None:
        raise InvalidRequest(
            f"Tools that must be called, or are strict, cannot be combined with "
            f"{params.grammar.param}.",
            param=params.grammar.param,
            remedy="Give one of them.",
        )
    kept = Grammar(kind=grammar.kind, text=grammar.text, after=grammar.after, param="tools")
    return msgspec.structs.replace(params, grammar=kept)


def _behind_thoughts(params: SamplingParams, after: str) -> SamplingParams:
    """`params` whose grammar, if there is one, leaves thoughts alone."""
    if params.grammar is None or not after:
        return params
    grammar = msgspec.structs.replace(params.grammar, after=after)
    return msgspec.structs.replace(params, grammar=grammar)
