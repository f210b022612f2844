"""JSON bodies as structs, and what is wrong with those that are none."""

import re
from typing import Any, TypeVar

import msgspec

from penstock.server.errors import HttpError
from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.sampling_params import MAX_NAME_LEN

Body = TypeVar("Body", bound=msgspec.Struct)

MAX_FIELDS = 256
"""Of a body. No endpoint knows half as many, and each costs time."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Name(str):
    """A field's name in a body. Decoding calls for each one, which shows a repeated name."""


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises `HttpError`."""
    names: list[str] = []

    def note(_: type, name: str) -> _Name:
        if len(names) == MAX_FIELDS:
            raise HttpError(400, f"The request body has more than {MAX_FIELDS} fields.")
        names.append(name)
        return _Name(name)

    try:
        values = msgspec.json.decode(raw, type=dict[_Name, Any], dec_hook=note)
    except UnicodeDecodeError as error:
        raise _not_json(f"it is not valid UTF-8 ({error.reason})") from None
    except RecursionError:
        raise _not_json("it nests too deeply") from None
    except msgspec.DecodeError as error:
        # a lone surrogate is reported as whatever it made of the bytes that follow
        hint = ", perhaps at half of a surrogate pair" if _SURROGATE.search(raw) else ""
        raise _not_json(f"{error}{hint}") from None
    if len(names) != len(values):
        repeated = next(name for name in names if names.count(name) > 1)[:MAX_NAME_LEN]
        raise HttpError(400, f"The field {repeated} is given more than once.", param=repeated)
    return {str(name): value for name, value in values.items()}


def converted(values: dict[str, Any], kind: type[Body]) -> Body:
    """`values` as a struct; null is unset. Raises `InvalidRequest`, naming the field."""
    try:
        return msgspec.convert(
            {name: value for name, value in values.items() if value is not None}, kind
        )
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None


def _not_json(reason: str) -> HttpError:
    return HttpError(400, f"The request body is not a JSON object: {reason}.", code="invalid_json")


def _bad_field(message: str) -> InvalidRequest:
    """msgspec says 'what - at `$.where`', or names the field that is missing."""
    what, _, where = message.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    if not path:
        match = re.search(r"field `(\w+)`", what)
        path = match[1] if match else ""
    return InvalidRequest(f"{path}: {what}." if path else f"{what}.", param=path or None)
