"""The lines of a batch, in OpenAI's format (https://platform.openai.com/docs/guides/batch)."""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import msgspec

from penstock.server.sse import one_line

_CHUNK_BYTES = 1 << 16
_MOST_TOLD = 100
_URL = re.compile(r"/(?!/)[!-~]{0,1000}")
_NUMBERED_ID = re.compile(r"batch_req_([1-9][0-9]{0,17})")


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of the input: what to POST where. `custom_id` is how its author finds the answer."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class BatchResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What a server would have answered."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line was asked of nobody."""

    code: str
    message: str


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the output. Its id tells the line of the input that it answers."""

    id: str
    custom_id: str | None
    response: BatchResponse | None = None
    error: LineError | None = None


class AnsweredLine(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of an answer that is there already."""

    id: str
    custom_id: str | None

    @property
    def number(self) -> int | None:
        """The line of the input, or None if the id is none of ours."""
        match = _NUMBERED_ID.fullmatch(self.id)
        return int(match[1]) if match else None


class BadLine(Exception):
    """A line that cannot be asked of anybody. `custom_id` is None if not even that can be read."""

    def __init__(self, code: str, message: str, *, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.error = LineError(code=code, message=message)
        self.custom_id = custom_id


class Line(NamedTuple):
    """A line of the input that is not blank; `number` counts from 1. `text` of a line that is too
    long is None.
    """

    number: int
    text: bytes | None


def lines_of(source: BinaryIO, max_bytes: int) -> Iterator[Line]:
    """The lines of a file, of which at most `max_bytes` of one are held in memory."""
    number = 0
    while text := source.readline(max_bytes + 1):
        number += 1
        if len(text) > max_bytes and not text.endswith(b"\n"):
            while (rest := source.readline(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Line(number, None)
        elif text.strip():
            yield Line(number, text)


class _Named(msgspec.Struct):
    custom_id: str | None = None


class _Streamed(msgspec.Struct):
    stream: Any = None


_decode_request = msgspec.json.Decoder(BatchRequest).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_streamed = msgspec.json.Decoder(_Streamed).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def request_of(line: Line) -> BatchRequest:
    """What the line asks for. Raises `BadLine`."""
    if line.text is None:
        raise BadLine("line_too_long", f"Line {line.number} is longer than --max-body-bytes.")
    try:
        request = _decode_request(line.text)
    except _UNREADABLE as error:
        is_json = isinstance(error, msgspec.ValidationError)
        code = "invalid_line" if is_json else "invalid_json_line"
        reason = f"Line {line.number} is not a request: {error}."
        raise BadLine(code, reason, custom_id=_custom_id(line.text)) from None
    try:
        _check(request)
    except BadLine as bad:
        bad.custom_id = request.custom_id
        raise
    return request


def _check(request: BatchRequest) -> None:
    if request.method != "POST":
        raise BadLine("invalid_method", f"The method is {request.method!r}; it must be POST.")
    if not _URL.fullmatch(request.url):
        told = request.url[:_MOST_TOLD]
        raise BadLine("invalid_url", f"The url is {told!r}; it must be like /v1/completions.")
    try:
        streamed = _decode_streamed(request.body).stream
    except _UNREADABLE:
        raise BadLine("invalid_body", "The body is not a JSON object.") from None
    if streamed:
        raise BadLine("stream_not_supported", "A batch has no streams: leave stream out.")


def _custom_id(text: bytes) -> str | None:
    try:
        return _decode_named(text).custom_id
    except _UNREADABLE:
        return None


def answer_id(number: int) -> str:
    """The id of the answer to this line of the input."""
    return f"batch_req_{number}"


def encoded(answer: BatchAnswer) -> bytes:
    """The answer as a line that every reader takes for one."""
    return one_line(msgspec.json.encode(answer)) + b"\n"
