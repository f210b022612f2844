"""What one connection may cost: the size of its headers, its time, its number."""

import contextlib
import json
import socket
import ssl
import subprocess
import time

import httpx
import pytest

from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError
from tests.server.scripted_llm import Script, ScriptedLLM
from tests.server.serving import PATIENCE_S, events, listening, wait_until

READ_TIMEOUT_S = 0.4
LIMITS = {"max_url_bytes": 200, "max_headers": 20, "max_header_bytes": 1000}


@contextlib.contextmanager
def connected(url):
    """A connection that has said nothing yet."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        yield connection


def rest_of(connection):
    """What is answered until the server closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            answer += part
    return answer


def said(answer):
    """Status and error code of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.fixture(scope="module")
def url():
    with listening(ScriptedLLM(), **LIMITS) as url:
        yield url


@pytest.mark.parametrize(
    "head, status, code",
    [
        (b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414, "url_too_long"),
        (b"GET /v1/models?" + b"x" * 300, 414, "url_too_long"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30 + b"\r\n", 431, "too_many_headers"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30, 431, "too_many_headers"),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 2000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"x" * 2000 + b": a\r\n\r\n", 431, "headers_too_large"),
        (b"complete nonsense\r\n\r\n", 400, "invalid_http"),
    ],
)
def test_what_is_too_large_is_refused_before_anyone_looks_at_it(url, head, status, code):
    with connected(url) as connection:
        connection.sendall(head)
        assert said(rest_of(connection)) == (status, code)


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nendless: ",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nendless: ",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;endless=",
    ],
    ids=["header", "trailer", "extension of a chunk"],
)
def test_what_has_no_end_is_not_waited_for(url, begin):
    with connected(url) as connection, pytest.raises(ConnectionError):
        connection.sendall(begin)
        for _ in range(100_000):  # 100 MB
            connection.sendall(b"x" * 1000)


def test_requests_that_do_not_wait_for_an_answer_are_left_to_be_asked_again(url):
    with connected(url) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
        answer = rest_of(connection)
    assert answer.count(b"HTTP/1.1") == answer.count(b"connection: close") == 1
    assert b"200 OK" in answer


def test_a_body_may_come_in_any_number_of_chunks(url):
    def chunks():
        yield b'{"prompt": "a", "user": "'
        for _ in range(3000):
            yield b"x"
        yield b'"}'

    assert httpx.post(f"{url}/v1/completions", content=chunks()).status_code == 200


@pytest.mark.parametrize("apart", [True, False])
def test_a_wish_for_another_protocol_is_ignored_and_the_body_is_read(url, apart):
    """Java's HTTP client asks every server for HTTP/2 so."""
    body = b'{"prompt": "a"}'
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\ncontent-length: 15\r\n\r\n"
    )
    with connected(url) as connection:
        for part in (head, body) if apart else (head + body,):
            connection.sendall(part)
            time.sleep(0.05)
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"200 OK" in rest_of(connection)


def test_a_large_body_behind_small_headers_is_none_of_that(url):
    body = {"prompt": "x" * 500, "max_tokens": 1, "user": "y" * 20_000}
    assert httpx.post(f"{url}/v1/completions", json=body).status_code == 200


def test_refusals_are_counted(url):
    with connected(url) as connection:
        connection.sendall(b"GET /" + b"x" * 300)
        rest_of(connection)
    assert 'route="unmatched",status="414"' in httpx.get(f"{url}/metrics").text


@pytest.fixture(scope="module")
def impatient():
    llm = ScriptedLLM(Script("Hello", delay_s=READ_TIMEOUT_S / 4))
    with listening(llm, read_timeout_s=READ_TIMEOUT_S) as url:
        yield url


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"POST /v1/comp",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-a: ",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
    ],
)
def test_a_request_that_does_not_arrive_is_not_waited_for(impatient, part):
    with connected(impatient) as connection:
        connection.sendall(part)
        assert said(rest_of(connection)) == (408, "request_timeout")


def test_dripping_does_not_help(impatient):
    with connected(impatient) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(0.05)
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-slow: ")
        for _ in range(1000):
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                assert said(connection.recv(65536)) == (408, "request_timeout")
                return
    pytest.fail("the server listened to a slow loris")


def test_an_answer_may_take_longer_than_a_request(impatient):
    body = b'{"prompt": "a", "stream": true}'
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    asked_in_time = False
    while not asked_in_time:  # where other work keeps us waiting, the first request may come late
        began = time.monotonic()
        with connected(impatient) as connection:
            connection.sendall(head.encode() + body)
            asked_in_time = time.monotonic() - began < READ_TIMEOUT_S / 2
            for _ in range(2 if asked_in_time else 0):
                answer = b""
                while not answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                    answer += (part := connection.recv(65536))
                    assert part, answer
                connection.sendall(head.encode() + body)


def test_more_connections_than_allowed_are_turned_away_while_all_are_busy():
    llm = ScriptedLLM(Script("Hello", hangs_after=0))
    with listening(llm, max_connections=2) as url:
        with contextlib.ExitStack() as held:
            for _ in range(2):
                connection = held.enter_context(connected(url))
                body = b'{"prompt": "a"}'
                head = f"POST /v1/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
            wait_until(lambda: len(llm.in_flight) == 2)
            with connected(url) as connection:
                answer = rest_of(connection)
                assert said(answer) == (503, "too_many_connections")
                assert b"retry-after: 1" in answer
        assert httpx.get(f"{url}/health/live").status_code == 200


def test_whoever_holds_connections_and_asks_nothing_makes_room_for_the_others():
    ask = b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
    with listening(ScriptedLLM(), max_connections=2) as url, contextlib.ExitStack() as held:
        silent = held.enter_context(connected(url))
        silent.sendall(b"GET / HTTP/1.1\r\nhost: ")
        answered = held.enter_context(connected(url))
        answered.sendall(ask)
        answer = b""
        while not answer.endswith(b'{"status":"live"}'):
            answer += answered.recv(65536)
        for _ in range(2):
            client = held.enter_context(httpx.Client(base_url=url))
            assert client.get("/health/live").status_code == 200
        assert rest_of(silent) == rest_of(answered) == b""


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A fresh certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subjects = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *subjects, *files], check=True, capture_output=True)
    return {"tls_cert": str(cert), "tls_key": str(key)}


def test_with_a_certificate_the_server_speaks_https_only(certificate):
    with listening(ScriptedLLM(), **certificate) as url:
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=certificate["tls_cert"])
        with httpx.Client(base_url=url, verify=trusting) as client:
            answer = client.post("/v1/completions", json={"prompt": "a", "stream": True})
        assert events(answer.text)[-1] == "[DONE]"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url.replace('https', 'http')}/health")


def test_tls_files_that_cannot_be_used_are_refused(certificate, tmp_path):
    cert, key = certificate["tls_cert"], certificate["tls_key"]
    with pytest.raises(SettingsError, match="only together"):
        ServerSettings(tls_cert=cert)
    with pytest.raises(SettingsError, match=r"cannot be used.*No such file"):
        ServerSettings(tls_cert=cert, tls_key=str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="cannot be used"):
        ServerSettings(tls_cert=key, tls_key=cert)
