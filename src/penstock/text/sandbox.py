"""A Jinja environment for templates that nobody has vouched for.

Jinja's immutable sandbox keeps a template from reaching Python and from changing what it is given.
It does not keep one from running for ever or from filling the memory. Here every loop and macro
checks the time, every output counts, and what multiplies text is refused beforehand (`growth`).
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from jinja2 import filters, nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from penstock.text import growth
from penstock.text.growth import MAX_CHARS, TemplateTooCostly, check_len, check_weight

MAX_RENDER_S = 2.0
_MAX_CHARS_HANDLED = 16 * MAX_CHARS  # text may pass through several macros on its way out
_ALLOWANCE = "allowance of this render"  # templates cannot name a variable with spaces


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The immutable sandbox, with a limit on all that a template can repeat."""

    intercepted_binops = frozenset(growth.OPERATORS)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_counted,
            extensions=[LoopControlExtension, GenerationTag, Meter],
        )
        self.binop_table |= growth.OPERATORS
        for name in ("batch", "center", "slice", "urlize", "wordwrap", "xmlattr"):
            del self.filters[name]  # of no use in a chat, and each can multiply text
        del self.globals["lipsum"]
        self.filters |= {
            "format": _format,
            "indent": _indent,
            "join": _join,
            "pprint": _pprint,
            "replace": _replace,
            "string": _string,
        }

    def metered(self, source: str) -> jinja2.Template:
        """The template `source`, made to count what it does."""
        meter = self.extensions[Meter.identifier]
        assert isinstance(meter, Meter)
        tree = self.parse(source)
        _MeterReader(meter).visit(tree)
        return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def render(self, template: jinja2.Template, variables: Mapping[str, object]) -> str:
        """The output. Raises `TemplateTooCostly` as soon as it is too long, or takes too long."""
        pieces, num_chars = [], 0
        for piece in template.generate({**variables, _ALLOWANCE: _Allowance()}):
            pieces.append(piece)
            num_chars += len(piece)
            if num_chars > MAX_CHARS:
                raise TemplateTooCostly(f"the output is longer than {MAX_CHARS} characters")
        return "".join(pieces)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is unsafe.")

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        # The odd names are Jinja's: a template may pass keywords called self, context and obj.
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            if method.__name__ == "join" and args:
                args = (list(args[0]), *args[1:])  # an iterator could be looked at only once
            growth.check_method(owner, method.__name__, (*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)


class GenerationTag(Extension):
    """`{% generation %}` marks the model's own words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Meter(Extension):
    """What metered templates call: in every round of a loop or macro, and to concatenate."""

    @pass_context
    def check_time(self, context: Context) -> str:
        context[_ALLOWANCE].check_time()
        return ""

    def concatenate(self, *values: object) -> str:
        check_weight(*values)
        return "".join(map(str, values))


class _MeterReader(NodeTransformer):
    """Puts the calls of `Meter` into a template's tree."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        node = self.generic_visit(node)
        if isinstance(node, nodes.For | nodes.Macro):
            node.body.insert(0, nodes.ExprStmt(self._meter.call_method("check_time")))
        elif isinstance(node, nodes.Concat):
            return self._meter.call_method("concatenate", node.nodes, lineno=node.lineno)
        return node


class _Allowance:
    """What one render may still use up."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_RENDER_S
        self._num_chars_left = _MAX_CHARS_HANDLED

    def check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TemplateTooCostly(f"the template takes over {MAX_RENDER_S:g} s of processor time")

    def spend(self, num_chars: int) -> None:
        self._num_chars_left -= num_chars
        if self._num_chars_left < 0:
            raise TemplateTooCostly(f"the template writes over {_MAX_CHARS_HANDLED} characters")


@pass_context
def _counted(context: Context, value: object) -> str:
    """The text of a value on its way out, be it out of a macro or out of the template."""
    text = _string(value)
    context[_ALLOWANCE].spend(len(text))
    return text


def _string(value: object) -> str:
    if not isinstance(value, str):
        check_weight(value)
    return str(value)


def _pprint(value: object) -> str:
    check_weight(value)
    return filters.do_pprint(value)


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    return str(growth.remainder(str(value), kwargs or args))


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    width_len = len(width) if isinstance(width, str) else width
    check_len(len(text) + (text.count("\n") + 1) * width_len)
    return filters.do_indent(text, width, first, blank)


@pass_eval_context
def _join(
    eval_context: EvalContext, value: Iterable[Any], d: str = "", attribute: str | None = None
) -> str:
    items = list(value)
    growth.check_join(items, d)
    return filters.sync_do_join(eval_context, items, d, attribute)


@pass_eval_context
def _replace(
    eval_context: EvalContext, text: str, old: str, new: str, count: int | None = None
) -> str:
    growth.check_method(str(text), "replace", (old, new))
    return filters.do_replace(eval_context, text, old, new, count)
