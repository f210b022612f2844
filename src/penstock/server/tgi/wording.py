"""How TGI words failures."""

import msgspec

from penstock.server.errors import HttpError, Wording

_STATUSES = {400: 422, 500: 424}
_KINDS = {
    422: ("validation", "Input validation error"),
    424: ("generation", "Request failed during generation"),
    429: ("overloaded", "Model is overloaded"),
    503: ("healthcheck", "unhealthy"),
}

TEMPLATE_ERROR = "template_error"
"""The code of an `HttpError` that TGI has a type of its own for."""


class TgiError(msgspec.Struct, frozen=True):
    """The body of every answer that is no success, and the last event of a stream that failed."""

    error: str
    error_type: str


def _status(error: HttpError) -> int:
    return _STATUSES.get(error.status, error.status)


def _body(error: HttpError) -> bytes:
    kind, begin = _KINDS.get(_status(error), (error.detail.code or error.detail.type, ""))
    if error.detail.code == TEMPLATE_ERROR:
        kind, begin = TEMPLATE_ERROR, "Template error"
    text = f"{begin}: {error}" if begin else str(error)
    return msgspec.json.encode(TgiError(text, kind))


TGI_WORDING = Wording(body=_body, schema=TgiError, status=_status)
