"""A Jinja environment for templates that nobody has vouched for.

Jinja's immutable sandbox keeps a template from reaching Python and from changing what it is given.
It does not keep one from running for ever or from filling the memory. Here every loop and macro
checks the time, as does every filter, test and call; whatever these build counts; and what
multiplies text is refused beforehand (`growth`).
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jinja2
from jinja2 import filters, nodes, pass_context, pass_environment, pass_eval_context
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
_MAX_CHARS_BUILT = 64 * MAX_CHARS  # values may be built and thrown away on the way, too
_ITEM_CHARS = 32  # what an item of a list takes
_MAX_DIGITS = 100
_Value = TypeVar("_Value")
# These look at every item of a list, however large it is and however often it is there.
_LOOKING = {"dictsort", "groupby", "list", "map", "max", "min", "reject", "rejectattr", "select"}
_LOOKING |= {"selectattr", "sort", "sum", "unique"}
_COMPARING = {"eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "in"}
_COMPARING |= {"greaterthan", ">", "ge", ">="}
_SMALL = (nodes.Const, nodes.Compare, nodes.Test, nodes.Not, nodes.Sub, nodes.Neg)
_OPERATIONS_BETWEEN_LOOKS = 16  # at the clock, which takes longer than most operations


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
            "round": _round,
            "string": _string,
            "sum": _sum,
        }
        for name, filter_ in self.filters.items():
            self.filters[name] = _metered(filter_, looks=name in _LOOKING)
        for name in _COMPARING:
            self.tests[name] = _metered(self.tests[name], looks=True)

    def metered(self, source: str) -> jinja2.Template:
        """The template `source`, made to count what it does."""
        meter = self.extensions[Meter.identifier]
        assert isinstance(meter, Meter)
        tree = self.parse(source)
        _MeterReader(meter).visit(tree)
        with _fresh_allowance():  # for constant expressions, which are computed now
            return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def render(self, template: jinja2.Template, variables: Mapping[str, object]) -> str:
        """The output. Raises `TemplateTooCostly` as soon as it is too long, or takes too long."""
        pieces, num_chars = [], 0
        with _fresh_allowance():
            for piece in template.generate(variables):
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
        elif isinstance(owner, int | float | bytes):
            raise TemplateTooCostly("chat templates may not use methods of numbers or bytes")
        return _built(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return _built(super().call_binop(context, operator, left, right))


class GenerationTag(Extension):
    """`{% generation %}` marks the model's own words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Meter(Extension):
    """What metered templates call: in every round of a loop or macro, and for what would otherwise
    be computed without a call.
    """

    def check_time(self) -> str:
        _allowance.get().check_time()
        return ""

    def concatenate(self, *values: object) -> str:
        check_weight(*values)
        return _built("".join(map(str, values)))

    def built(self, value: object) -> object:
        return _built(value)

    def compared(self, value: object) -> object:
        check_weight(value)
        _allowance.get().check_time()
        return value


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
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return self._meter.call_method("built", [node], lineno=node.lineno)
        elif isinstance(node, nodes.AssignBlock):
            node.filter = nodes.Filter(node.filter, "string", [], [], None, None)
        elif isinstance(node, nodes.Compare):
            self._weigh(node)
        return node

    def _weigh(self, node: nodes.Compare) -> None:
        """Comparing with a number or a constant is cheap; lists may hold the same many times."""
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if not any(isinstance(side, _SMALL) for side in sides):
            node.expr = self._compared(node.expr)
            for operand in node.ops:
                operand.expr = self._compared(operand.expr)

    def _compared(self, side: nodes.Expr) -> nodes.Expr:
        return self._meter.call_method("compared", [side], lineno=side.lineno)


class _Allowance:
    """What one render may still use up."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_RENDER_S
        self._num_chars_left = _MAX_CHARS_HANDLED
        self._num_built_left = _MAX_CHARS_BUILT
        self._num_built = 0

    def check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise TemplateTooCostly(f"the template takes over {MAX_RENDER_S:g} s of processor time")

    def spend(self, num_chars: int) -> None:
        self._num_chars_left -= num_chars
        if self._num_chars_left < 0:
            raise TemplateTooCostly(f"the template writes over {_MAX_CHARS_HANDLED} characters")

    def build(self, num_chars: int) -> None:
        self._num_built += 1
        if not self._num_built % _OPERATIONS_BETWEEN_LOOKS:
            self.check_time()
        self._num_built_left -= num_chars
        if self._num_built_left < 0:
            raise TemplateTooCostly("the template builds too many values")


_allowance: ContextVar[_Allowance] = ContextVar("allowance of this render")


@contextmanager
def _fresh_allowance() -> Iterator[None]:
    token = _allowance.set(_Allowance())
    try:
        yield
    finally:
        _allowance.reset(token)


def _built(value: _Value) -> _Value:
    """`value`, which an operation has made, and which counts."""
    if isinstance(value, str):
        check_len(len(value))
        _allowance.get().build(len(value))
    else:
        size = len(value) if isinstance(value, bytes | list | tuple | dict) else 1
        _allowance.get().build(_ITEM_CHARS * size)
    return value


def _metered(function: Any, *, looks: bool) -> Callable[..., Any]:
    """A filter or test whose time and result count."""

    @functools.wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        if looks:
            check_weight(*args, *kwargs.values())
        return _built(function(*args, **kwargs))

    return metered


@pass_context
def _counted(context: Context, value: object) -> str:
    """The text of a value on its way out, be it out of a macro or out of the template."""
    text = _string(value)
    _allowance.get().spend(len(text))
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


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > _MAX_DIGITS:
        raise TemplateTooCostly(f"numbers are rounded to at most {_MAX_DIGITS} digits")
    return filters.do_round(value, precision, method)


@pass_environment
def _sum(
    environment: jinja2.Environment,
    iterable: Iterable[Any],
    attribute: str | int | None = None,
    start: Any = 0,
) -> Any:
    if not isinstance(start, int | float):
        raise TemplateTooCostly("only numbers can be summed up")
    return filters.sync_do_sum(environment, iterable, attribute, start)
