"""A client of any server that speaks OpenAI's completions API, with a stopwatch."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec

from penstock.bench.settings import TargetSettings
from penstock.bench.timing import ANSWERED, Timing
from penstock.bench.workload import Task
from penstock.vocabulary.errors import NoSuchServer

_CONNECT_TIMEOUT_S = 10.0
_MAX_QUOTE = 300  # characters of a server's own words in an error


class _Choice(msgspec.Struct):
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Failure(Exception):
    """The request failed; the argument is the outcome."""


_decode = msgspec.json.Decoder(_Event).decode


@dataclass
class _Reception:
    """What has come of one request so far."""

    arrivals_s: list[float] = field(default_factory=list)
    is_finished: bool = False
    usage: _Usage | None = None

    def take(self, data: bytes, elapsed_s: float) -> None:
        """One event. The empty one that says why a completion ended is no token, unless it is all
        there is.
        """
        try:
            event = _decode(data)
        except msgspec.DecodeError:
            raise _Failure("not understood") from None
        if event.error is not None:
            raise _Failure("error in the stream")
        self.usage = event.usage or self.usage
        for choice in event.choices:
            ends = choice.finish_reason is not None
            if choice.text or not ends or not self.arrivals_s:
                self.arrivals_s.append(elapsed_s)
            self.is_finished = self.is_finished or ends


class BenchClient:
    """Sends tasks to one server and times the answers. Made by `connect`."""

    def __init__(self, http: httpx2.AsyncClient, settings: TargetSettings) -> None:
        self._http = http
        self._settings = settings
        self.model = settings.model
        self.max_model_len = settings.max_model_len

    async def look_around(self) -> None:
        """Ask for the server's models. Raises `NoSuchServer` if nobody answers as expected."""
        where = f"{self._http.base_url}models"
        try:
            response = await self._http.get("models")
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise NoSuchServer(
                f"{where} does not answer: {error or type(error).__name__}.",
                remedy="Is the server running? `penstock serve` starts one.",
            ) from None
        _raise_for(response.status_code, response.content, where)
        try:
            models = msgspec.json.decode(response.content)["data"]
            ours = [each for each in models if self.model in (None, each["id"])]
        except (msgspec.DecodeError, KeyError, TypeError):
            raise NoSuchServer(
                f"{where} does not answer as OpenAI's API says.", remedy="Check --url."
            ) from None
        if ours:
            self.model = ours[0]["id"]
            self.max_model_len = self.max_model_len or ours[0].get("max_model_len")

    async def try_out(self, task: Task) -> None:
        """Send the beginning of a task, to see whether the server takes such requests at all.

        Raises `NoSuchServer`, with the server's own words, if it does not.
        """
        where = f"{self._http.base_url}completions"
        body = self._body(Task(task.prompt, 1))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                response = await self._http.post("completions", json=body)
        except (TimeoutError, httpx2.TransportError) as error:
            raise NoSuchServer(f"{where} broke off: {error or type(error).__name__}.") from None
        if response.status_code not in (429, 503):  # busy is something to measure
            _raise_for(response.status_code, response.content, where)

    async def send(self, task: Task, run_began: float) -> Timing:
        """Send one task and read the answer to its end; failures are outcomes, not errors."""
        start = time.perf_counter()
        reception = _Reception()
        outcome = ANSWERED
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._receive(task, reception, start)
        except _Failure as failure:
            outcome = str(failure)
        except TimeoutError:
            outcome = "timed out"
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            outcome = "no connection"
        except httpx2.TransportError:
            outcome = "cut off"
        usage = reception.usage
        known = len(task.prompt) if isinstance(task.prompt, list) else None
        return Timing(
            outcome=outcome,
            start_s=start - run_began,
            end_s=time.perf_counter() - start,
            arrivals_s=reception.arrivals_s,
            num_prompt_tokens=usage.prompt_tokens if usage else known,
            num_output_tokens=usage.completion_tokens if usage else len(reception.arrivals_s),
        )

    async def _receive(self, task: Task, reception: _Reception, start: float) -> None:
        async with self._http.stream("POST", "completions", json=self._body(task)) as response:
            if response.status_code != 200:
                raise _Failure(f"status {response.status_code}")
            async for data in _events(response.aiter_bytes()):
                reception.take(data, time.perf_counter() - start)
        if not reception.is_finished:
            raise _Failure("cut off")

    def _body(self, task: Task) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": task.prompt,
            "max_tokens": task.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self._settings.ignore_eos else {}),
        }


def connect(url: str, settings: TargetSettings) -> httpx2.AsyncClient:
    """A connection pool for the server at `url`, with or without /v1 at its end.

    Raises `NoSuchServer` for what is no URL.
    """
    root = url.rstrip("/").removesuffix("/v1")
    headers = {"authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    try:
        parsed = httpx2.URL(f"{root}/v1/")
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise NoSuchServer(f"{url!r} is no URL.", remedy="Write http://127.0.0.1:8000")
    if parsed.userinfo:  # it would stand in reports and errors
        raise NoSuchServer("A URL with a password is not taken.", remedy="Use --api-key.")
    return httpx2.AsyncClient(
        base_url=parsed,
        headers=headers,
        # as many connections as requests; `send` limits the time of a whole request itself
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
    )


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of server-sent events, up to the final [DONE].

    Lines end at line feeds and nowhere else: text inside JSON may hold other separators.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield data


def _raise_for(status: int, body: bytes, where: str) -> None:
    if status == 200:
        return
    try:
        said = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        said = body.decode(errors="replace")
    raise NoSuchServer(
        f"{where} answers with status {status}: {said[:_MAX_QUOTE]}".rstrip(": "),
        remedy={
            400: "--no-ignore-eos and --vocab-size make requests that more servers take.",
            401: "Give its key with --api-key.",
            403: "Give its key with --api-key.",
            404: "Check --url and --model.",
        }.get(status, ""),
    )
