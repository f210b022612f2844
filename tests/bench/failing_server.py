"""A server whose connections break in the middle of a stream."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_EVENT = b'data: {"choices": [{"text": "x", "finish_reason": null}]}\n\n'
_LAST = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'


@contextlib.contextmanager
def dying_server(*, num_whole: int, **answers: bytes) -> Iterator[str]:
    """The URL of a server that answers so many completions to their end, and breaks off all later
    ones after two tokens. `models` is what it answers when asked for its models.
    """
    numbers = itertools.count()  # next() on it is atomic, and requests come side by side

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            body = answers.get("models", b'{"data": [{"id": "mortal"}]}')
            self._begin(len(body))
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            is_whole = next(numbers) < num_whole
            whole = _EVENT * 2 + _LAST
            self._begin(len(whole))
            if is_whole:
                self.wfile.write(whole)
            else:
                self.wfile.write(_EVENT * 2)
                self.close_connection = True

        def _begin(self, num_bytes: int) -> None:
            self.send_response(200)
            self.send_header("content-length", str(num_bytes))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
