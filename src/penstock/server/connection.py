"""What one connection may cost before any of our code sees a request.

Neither uvicorn nor its parser limits the length of a URL, the number or size of headers, or the
time in which a request arrives or its answer is taken, so that one client could hold memory and
connections at will (CVE-2025-48956 was that, and the slow-loris and slow-read attacks are).
"""

import asyncio
import re
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.server.errors import OPENAI_WORDING, HttpError
from penstock.server.front import Front

LEAST_TAKEN_BYTES = 32 * 1024
"""Of what waits for a client: so much it must take within the time, or all."""

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's protocol within the limits of `front`'s settings, for `limited_to` to bind."""

    front: Front
    _refusal: HttpError | None = None
    _has_heard_enough = False
    _has_got_on = False
    _is_in_head = True
    _idle_since = 0.0
    _num_held_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        most = self.front.settings.max_connections
        if len(self.connections) > most and not self._has_made_room():
            self._refuse(
                HttpError(
                    503,
                    f"The server has {most} connections open, and takes no more.",
                    kind="server_error",
                    code="too_many_connections",
                    headers={"retry-after": "1"},
                )
            )
        else:
            self._expect_a_request()

    def _has_made_room(self) -> bool:
        """Close the connection that has asked nothing for longest, if one is not being answered, so
        that nobody keeps others out by connections alone.
        """
        idle = [each for each in self.connections if isinstance(each, LimitedConnection)]
        idle = [each for each in idle if each is not self and each._is_idle]
        if idle:
            min(idle, key=lambda each: each._idle_since).transport.abort()
        return bool(idle)

    @property
    def _is_idle(self) -> bool:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return not is_answering and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self._has_heard_enough:
            return
        if self._deadline is None:
            self._expect_a_request()
        self._has_got_on = False
        super().data_received(_without_upgrade(data) if self._is_in_head else data)
        if self._has_got_on:
            self._num_held_bytes = 0
            return
        # of a header without end, for instance, or behind a body of what is no part of it
        self._num_held_bytes += len(data)
        if self._num_held_bytes > self._max_head_bytes and not self.transport.is_closing():
            self._refuse(_head_too_large(self._max_head_bytes))

    # -- what the client takes -------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_reader()  # for what is left

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()
        self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._patience is None:
            seconds = self.front.settings.write_timeout_s
            self._patience = self.loop.call_later(seconds, self._look_at_reader, left)

    def _look_at_reader(self, num_left: int) -> None:
        """Nobody can be told anything who does not read: the connection is dropped."""
        self._patience = None
        if num_left - self.transport.get_write_buffer_size() < min(num_left, LEAST_TAKEN_BYTES):
            self.transport.abort()
        else:
            self._wait_for_reader()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # -- what the parser finds -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """One request at a time: uvicorn would keep any number behind a long answer, and not notice
        any more if the client leaves. As HTTP allows, the connection ends with that answer, and
        whoever wants more asks again.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            self._has_heard_enough = True
            raise httptools.HttpParserCallbackError("A request came before the last was answered.")
        self._has_got_on = True
        if not self.flow.write_paused:
            self._stop_waiting()  # what another answer adds would hide what is taken
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        most = self.front.settings.max_url_bytes
        if len(self.url) > most:
            message = f"The URL is longer than the {most} bytes accepted here."
            self._give_up(HttpError(414, message, code="url_too_long"))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        most = self.front.settings.max_headers
        if len(self.headers) > most:
            message = f"The request has more than the {most} headers accepted here."
            self._give_up(HttpError(431, message, code="too_many_headers"))

    def on_headers_complete(self) -> None:
        self._has_got_on = True
        self._is_in_head = False
        if sum(len(name) + len(value) for name, value in self.headers) > self._max_head_bytes:
            self._give_up(_head_too_large(self._max_head_bytes))
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_got_on = True
        self._is_in_head = True
        self._expect_nothing()
        super().on_message_complete()

    @property
    def _max_head_bytes(self) -> int:
        return self.front.settings.max_header_bytes

    # -- refusing --------------------------------------------------------------------------------

    def _give_up(self, error: HttpError) -> None:
        """Leave the parser, which then has `send_400_response` called."""
        self._refusal = error
        raise httptools.HttpParserCallbackError(str(error))

    def send_400_response(self, msg: str) -> None:
        if self._has_heard_enough:
            return
        self._refuse(self._refusal or HttpError(400, msg, code="invalid_http"))

    def _refuse(self, error: HttpError) -> None:
        """Answer here and now, unless an answer is on its way, and close."""
        self._expect_nothing()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.front.metrics.answered("unmatched", error.status)
            self.transport.write(_raw(error))
        self.transport.close()
        self._wait_for_reader()

    # -- time ------------------------------------------------------------------------------------

    def _expect_a_request(self) -> None:
        self._expect_nothing()
        seconds = self.front.settings.read_timeout_s
        self._deadline = self.loop.call_later(seconds, self._on_deadline, seconds)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_deadline(self, seconds: float) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and not self.cycle.more_body:
            self._expect_a_request()  # its reading may have been paused, by us
            return
        message = f"The request did not arrive within {seconds:g} s."
        self._refuse(HttpError(408, message, code="request_timeout"))


def limited_to(front: Front) -> type[LimitedConnection]:
    """The protocol of a server's connections."""
    return type("Connection", (LimitedConnection,), {"front": front})


def _without_upgrade(data: bytes) -> bytes:
    """The same, but that a head in it wishes for no other protocol, such as HTTP/2 as Java's own
    client does of everyone. None is spoken here; the wish may be ignored, but the parser would take
    the body for what is said in that protocol.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest


def _head_too_large(most: int) -> HttpError:
    return HttpError(
        431,
        f"The headers are larger than the {most} bytes accepted here.",
        code="headers_too_large",
    )


def _raw(error: HttpError) -> bytes:
    body = OPENAI_WORDING.body(error)
    headers = {
        **error.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body
