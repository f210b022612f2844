"""Conversations written down the way a model was taught to read them."""

import json
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

from penstock.text.growth import TemplateTooCostly, check_weight
from penstock.text.sandbox import BoundedEnvironment
from penstock.vocabulary.errors import InvalidRequest, ModelError

MAX_SOURCE_CHARS = 256 * 1024
_MAX_INDENT = 16


class ChatTemplate:
    """A model's chat template, compiled. The template is untrusted: it runs in a bounded sandbox.

    `special_tokens` ("bos_token", "eos_token" and so on) are variables of every render.
    """

    def __init__(self, source: str, *, special_tokens: dict[str, str]) -> None:
        if len(source) > MAX_SOURCE_CHARS:
            raise ModelError(f"The chat template is longer than {MAX_SOURCE_CHARS} characters.")
        self.source = source
        self._special_tokens = special_tokens
        self._environment = _environment()
        try:
            self._template = self._environment.metered(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(
                f"The chat template is not valid Jinja: line {error.lineno}: {error.message}."
            ) from None
        except Exception as error:  # constant expressions are computed here
            raise ModelError(f"The chat template cannot be compiled: {error}.") from None

    def render(
        self,
        messages: list[dict[str, Any]],
        /,
        *,
        add_generation_prompt: bool = True,
        tools: list[Any] | None = None,
        **kwargs: Any,
    ) -> str:
        """The conversation written down; `kwargs` are further variables of the template.

        `messages` are such as `for_template` makes. Special tokens are part of the result. Raises
        `InvalidRequest` with the template's own words if it refuses, or with what went wrong in it.
        """
        variables = {
            "documents": None,
            **self._special_tokens,
            **kwargs,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._environment.render(self._template, variables)
        except Exception as error:  # a template can fail in any way that an expression can
            raise InvalidRequest(_explained(error), param="messages") from None


def _explained(error: Exception) -> str:
    match error:
        case _Refusal():
            return str(error)
        case TemplateTooCostly():
            return f"The chat template was stopped: {error}."
        case SecurityError():
            return f"The chat template does what the sandbox forbids: {error}"
        case jinja2.UndefinedError():
            return f"The chat template needs something the request lacks: {error}."
        case RecursionError():
            return "The chat template was stopped: it nests too deeply."
    return f"The chat template failed: {type(error).__name__}: {error}"


def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment()
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = _Variables
    return environment


class _Refusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _Variables(Namespace):
    """Jinja's namespace without names that mean something to Python itself."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]  # as Jinja does, so that a variable may be called self
        values = dict(*args, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the name {name!r}.")


def _raise_exception(message: object) -> NoReturn:
    raise _Refusal(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models were trained on it: no escapes for HTML, none for other alphabets."""
    check_weight(value)
    if indent is not None and indent > _MAX_INDENT:
        raise TemplateTooCostly(f"tojson may indent by at most {_MAX_INDENT}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
