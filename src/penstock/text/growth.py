"""What a template may build: the operations that multiply text, refused before they do it."""

import operator
import re
from collections.abc import Callable, Iterable
from string import Formatter
from typing import Any

from jinja2 import TemplateError

MAX_CHARS = 4_000_000
_MAX_INT_BITS = 4096
_MAX_WIDTH = 9_999
_ATOM_CHARS = 8  # about what a number, or a pair of brackets and a comma, takes
_WIDE_FIELD = re.compile(r"%[^%a-zA-Z]*(\*|[0-9]{5})")
_PADDING = {"center", "encode", "expandtabs", "ljust", "rjust", "translate", "zfill"}


class TemplateTooCostly(TemplateError):
    """A template asked for more time, text or memory than any conversation needs."""


def check_len(num_chars: int) -> None:
    """Refuse a value that would become so long."""
    if num_chars > MAX_CHARS:
        raise TemplateTooCostly(f"the template builds a value of over {MAX_CHARS} characters")


def check_weight(*values: object) -> None:
    """Refuse values whose text is too long. What a list holds many times counts every time."""
    weight, waiting = 0, list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        weight += len(value) if isinstance(value, str) else _ATOM_CHARS
        check_len(weight + len(waiting))


def check_method(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Refuse a call of the string method `name` that would multiply `text` too far."""
    if name in _PADDING:
        raise TemplateTooCostly(f"chat templates may not use str.{name}")
    if name == "replace" and len(args) >= 2:
        check_len(len(text) + text.count(str(args[0])) * len(str(args[1])))
    elif name == "join" and args:
        check_join(args[0], text)
    elif name in ("format", "format_map"):
        specs = [spec for _, _, spec, _ in Formatter().parse(text) if spec]
        if any("{" in spec or re.search("[0-9]{5}", spec) for spec in specs):
            raise TemplateTooCostly(f"a format field may be at most {_MAX_WIDTH} wide")
        _check_fields(text.count("{"), args)


def check_join(items: Iterable[object], separator: str) -> None:
    """Refuse to join items whose texts are too long together."""
    items = list(items)
    check_len(len(items) * len(separator))
    check_weight(items)


def add(left: Any, right: Any) -> Any:
    """`+`: of numbers, texts or lists."""
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        check_len(len(left) + len(right))
    return operator.add(left, right)


def multiply(left: Any, right: Any) -> Any:
    """`*`: of numbers, or a text or list repeated."""
    for many, times in ((left, right), (right, left)):
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            check_len(len(many) * times)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    return operator.mul(left, right)


def power(left: Any, right: Any) -> Any:
    """`**`, as long as the number stays one that somebody could want."""
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * right)
    return operator.pow(left, right)


def remainder(left: Any, right: Any) -> Any:
    """`%`: of numbers, or a text with fields to fill in."""
    if isinstance(left, str):
        if _WIDE_FIELD.search(left):
            raise TemplateTooCostly(f"a format field may be at most {_MAX_WIDTH} wide")
        _check_fields(left.count("%"), right if isinstance(right, tuple) else (right,))
    return operator.mod(left, right)


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": add,
    "*": multiply,
    "**": power,
    "%": remainder,
}


def _check_bits(num_bits: int) -> None:
    if num_bits > _MAX_INT_BITS:
        raise TemplateTooCostly(f"the template builds a number of over {_MAX_INT_BITS} bits")


def _check_fields(num_fields: int, args: tuple[Any, ...]) -> None:
    check_weight(args)
    check_len(num_fields * (len(str(args)) + _MAX_WIDTH))
