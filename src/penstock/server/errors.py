"""Every failure as an HTTP answer, in the words of the dialect that was spoken."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock.server.quota import OverQuota
from penstock.vocabulary.errors import (
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    Overloaded,
    Unavailable,
)

RETRY_WHEN_UNAVAILABLE_S = 5  # about what a restart of the engine, or of the whole server, takes


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, in the words of OpenAI's API."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


@dataclass(frozen=True)
class Wording:
    """How a dialect words failures: the body of an answer, and its schema for OpenAPI.

    `event` is what a stream that has begun ends with; `status` may differ from our own, but for
    some failures of the statuses in `also`. Answers carry the request's id as `x-request-id`, and
    once more as `id_header` if there is one.
    """

    body: "Callable[[HttpError], bytes]"
    schema: type[msgspec.Struct]
    event: "Callable[[HttpError], bytes] | None" = None
    status: "Callable[[HttpError], int] | None" = None
    id_header: str | None = None
    also: tuple[int, ...] = ()

    def status_of(self, error: "HttpError") -> int:
        """The status of an answer that says so."""
        return self.status(error) if self.status else error.status


class HttpError(Exception):
    """An answer that is not a success: raised anywhere, sent by the outermost layer.

    `request_id` is set there.
    """

    request_id = ""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message, type=kind, param=param, code=code)
        self.headers = dict(headers or {})

    def response(self, wording: Wording) -> Response:
        """The whole answer."""
        return Response(
            wording.body(self),
            wording.status_of(self),
            self.headers,
            media_type="application/json",
        )

    def event(self, wording: Wording) -> bytes:
        """What tells the client so when half an answer is out already."""
        return wording.event(self) if wording.event else b"data: " + wording.body(self) + b"\n\n"


OPENAI_WORDING = Wording(
    body=lambda error: msgspec.json.encode(ErrorBody(error.detail)), schema=ErrorBody
)
"""Of most dialects, and of whatever belongs to none."""


def http_error_from(error: Exception, request_id: str) -> HttpError:
    """The answer that `error` deserves. What nobody foresaw says only where to look it up."""
    deserved = _deserved(error, request_id)
    deserved.request_id = request_id
    return deserved


def _deserved(error: Exception, request_id: str) -> HttpError:
    match error:
        case HttpError():
            return error
        case InvalidRequest():
            code = "context_length_exceeded" if isinstance(error, ContextTooLong) else None
            return HttpError(400, str(error), param=error.param, code=code)
        case Overloaded():
            return HttpError(
                429,
                str(error),
                kind=error.kind if isinstance(error, OverQuota) else "requests",
                code="rate_limit_exceeded",
                headers={"retry-after": str(error.retry_after_s)},
            )
        case Unavailable():
            return HttpError(
                503,
                str(error),
                kind="server_error",
                code="unavailable",
                headers={"retry-after": str(RETRY_WHEN_UNAVAILABLE_S)},
            )
        case EngineFailed():
            return HttpError(500, str(error), kind="server_error", code="engine_failed")
        case RecursionError():  # nothing here goes deep but what a client has nested
            return HttpError(400, "The request nests too deeply.")
        case _:
            return HttpError(
                500,
                f"The server failed to answer. Its log tells more under request id {request_id}.",
                kind="server_error",
                code="internal_error",
            )


def is_foreseen(error: Exception) -> bool:
    """Whether the error explains itself, so that its traceback would tell the operator nothing."""
    return isinstance(error, _FORESEEN)


_FORESEEN = (HttpError, InvalidRequest, Overloaded, Unavailable, EngineFailed, RecursionError)


def routing_error(method: str, path: str, error: HTTPException) -> HttpError:
    """OpenAI's answer where no route matches a path, or the route does not know the method."""
    if error.status_code == 404:
        return HttpError(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
    if error.status_code == 405:
        return HttpError(
            405,
            f"Not allowed to {method} on {path}.",
            code="method_not_supported",
            headers=error.headers,
        )
    return HttpError(error.status_code, str(error.detail), headers=error.headers)
