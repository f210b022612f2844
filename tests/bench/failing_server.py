"""A server whose connections break in the middle of a stream."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_EVENT = b'data: {"choices": [{"text": "x", "finish_reason": null}]}\n\n'
_LAST = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'


class _Mortal(BaseHTTPRequestHandler):
    """Answers for a `_DyingServer`, which knows for how long."""

    protocol_version = "HTTP/1.1"
    server: "_DyingServer"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: standard error belongs to the tests."""

    def do_GET(self) -> None:
        self._begin(len(self.server.models))
        self.wfile.write(self.server.models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        is_whole = next(self.server.numbers) < self.server.num_whole
        self._begin(len(_EVENT * 2 + _LAST))
        self.wfile.write(_EVENT * 2 + (_LAST if is_whole else b""))
        self.close_connection = not is_whole

    def _begin(self, num_bytes: int) -> None:
        self.send_response(200)
        self.send_header("content-length", str(num_bytes))
        self.end_headers()


class _DyingServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, num_whole: int, models: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Mortal)
        self.num_whole = num_whole
        self.models = models
        self.numbers = itertools.count()  # next() on it is atomic, and requests come side by side


@contextlib.contextmanager
def dying_server(
    *, num_whole: int, models: bytes = b'{"data": [{"id": "mortal"}]}'
) -> Iterator[str]:
    """The URL of a server that answers so many completions to their end, and breaks off all later
    ones after two tokens. `models` is what it answers when asked for its models.
    """
    server = _DyingServer(num_whole, models)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
