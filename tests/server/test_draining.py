"""Told to stop, a server finishes what it has begun. These send real signals."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from penstock.server.serve import serve
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import ScriptedLLM
from tests.server.serving import PATIENCE_S, events, listening, wait_until

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def victim(*, drain_timeout_s):
    """A process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.server.drain_victim", str(drain_timeout_s)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


class Streaming:
    """A client in the background, reading one stream to its end."""

    def __init__(self, url):
        self.has_begun = threading.Event()
        self.body = ""
        self._thread = threading.Thread(target=self._read, args=(url,))
        self._thread.start()
        assert self.has_begun.wait(PATIENCE_S)

    def _read(self, url):
        body = {"prompt": "a", "stream": True}
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{url}/v1/completions", json=body) as response,
        ):
            for text in response.iter_text():
                self.body += text
                self.has_begun.set()

    def ended(self):
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return events(self.body)


def drains(url):
    answer = httpx.get(f"{url}/health/ready")
    return (answer.status_code, answer.json()["status"]) == (503, "not ready")


def test_running_requests_finish_and_new_ones_are_refused():
    with victim(drain_timeout_s=600) as (process, url):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        stream = Streaming(url)
        process.terminate()
        wait_until(lambda: drains(url))
        assert httpx.get(f"{url}/health/live").status_code == 200
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "a"})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["message"] == "The server is shutting down."
        process.stdin.write("go on")
        process.stdin.flush()
        chunks = stream.ended()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == ""
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "Hello, world"
    assert chunks[-1] == "[DONE]"


def test_requests_that_take_too_long_are_told_and_the_status_is_still_zero():
    with victim(drain_timeout_s=0.2) as (process, url):
        stream = Streaming(url)
        process.terminate()
        *_, error = stream.ended()
        assert process.wait(PATIENCE_S) == 0
    assert error["error"]["code"] == "unavailable"


def test_a_second_signal_ends_it_at_once():
    with victim(drain_timeout_s=600) as (process, url):
        stream = Streaming(url)
        process.terminate()
        wait_until(lambda: drains(url))
        process.terminate()
        assert process.wait(PATIENCE_S) == 1
        assert stream.ended()[-1] != "[DONE]"


def test_an_idle_server_leaves_at_once_also_on_ctrl_c():
    with victim(drain_timeout_s=600) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


def test_a_port_in_use_is_a_clear_error():
    with listening(ScriptedLLM()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(SettingsError, match=f"Cannot listen on 127.0.0.1:{port}"):
            asyncio.run(serve(ScriptedLLM(), ServerSettings(port=port)))
