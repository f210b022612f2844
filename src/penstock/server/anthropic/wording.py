"""Failures in the words of Anthropic's API: https://docs.claude.com/en/api/errors."""

from typing import Literal

import msgspec

from penstock.server.errors import HttpError, Wording
from penstock.server.sse import json_part

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail
    request_id: str


def _document(error: HttpError) -> AnthropicError:
    kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return AnthropicError(
        error=AnthropicErrorDetail(kind, error.detail.message), request_id=error.request_id
    )


ANTHROPIC_WORDING = Wording(
    body=lambda error: msgspec.json.encode(_document(error)),
    schema=AnthropicError,
    event=lambda error: b"event: error\ndata: " + json_part(_document(error)) + b"\n\n",
    id_header="request-id",
)
