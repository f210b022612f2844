"""What a way of writing tool calls is made of."""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from penstock.text.parsing.pieces import Said
from penstock.text.parsing.reader import Reader, Reading

_ALPHANUMERIC = string.ascii_letters + string.digits


class Frame(NamedTuple):
    """What stands before and behind the arguments of a call."""

    begin: str
    end: str


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """One way of writing tool calls.

    `read` tells calls from content. `tags` must stay visible to it even if they are special tokens,
    which are otherwise left out of a text. `is_taught_by` tells from the source of a chat template
    whether it teaches this format. `new_id` makes ids as the format's models know them.

    `frame` gives the frame of a function's arguments, by its name and the template's source; it is
    None where arguments are not JSON. Every frame begins with `trigger`.
    """

    name: str
    read: Callable[[Reader, Said], Reading[None]]
    tags: tuple[str, ...]
    is_taught_by: Callable[[str], bool]
    new_id: Callable[[], str]
    trigger: str = ""
    frame: Callable[[str, str], Frame] | None = None


def openai_id() -> str:
    """An id in the shape of OpenAI's."""
    return "call_" + _random(24)


def short_id() -> str:
    """Nine letters and digits, the only ids that Mistral's templates accept."""
    return _random(9)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))
