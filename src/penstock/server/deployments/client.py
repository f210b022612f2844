"""A client of a deployment, with the methods of MII's."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from penstock.server.deployments.record import Deployment
from penstock.server.errors import ErrorBody
from penstock.server.mii.response import Response
from penstock.vocabulary.errors import (
    EngineFailed,
    InvalidRequest,
    NoSuchServer,
    Overloaded,
    PenstockError,
    Unavailable,
)

_CONNECT_TIMEOUT_S = 10.0
_DATA = "data: "
_MAX_QUOTE = 300  # bytes of a server's own words in an error

_decode_responses = msgspec.json.Decoder(list[Response]).decode


class Client:
    """Continues prompts on a running deployment. `url` and `api_key` are for other clients of it,
    such as OpenAI's with `base_url=f"{client.url}/v1"`.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._http = httpx2.Client(
            base_url=deployment.url,
            headers={"authorization": f"Bearer {deployment.api_key}"},
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_keepalive_connections=0),  # so that nobody has to close it
        )

    @property
    def deployment_name(self) -> str:
        """The name that the deployment is found by."""
        return self._deployment.name

    @property
    def url(self) -> str:
        """The server's root."""
        return self._deployment.url

    @property
    def api_key(self) -> str:
        """What opens it."""
        return self._deployment.api_key

    def generate(
        self,
        prompts: str | Sequence[str],
        streaming_fn: Callable[[list[Response]], object] | None = None,
        **options: Any,
    ) -> list[Response] | None:
        """Continue a prompt or several; responses come in their order.

        Options are those of `GenerateParams`. With `streaming_fn`, the responses of a single prompt
        are handed to it as they come, each in a list, and nothing is returned. Raises
        `InvalidRequest` for what cannot be answered, and `NoSuchServer` if the deployment is gone.
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        body = {**options, "prompts": listed}
        if streaming_fn is None:
            answer = self._asked(body)
            return _decode_responses(answer.content)
        with contextlib.closing(self._streamed({**body, "stream": True})) as stream:
            for responses in stream:
                streaming_fn(responses)
        return None

    def __call__(self, *args: Any, **options: Any) -> list[Response] | None:
        """The same as `generate`."""
        return self.generate(*args, **options)

    def terminate_server(self) -> None:
        """End the deployment, for all its clients; requests that run get their time to finish."""
        terminate(self._deployment)

    def _asked(self, body: dict[str, Any]) -> httpx2.Response:
        with _naming(self._deployment):
            answer = self._http.post(self._path, content=msgspec.json.encode(body))
        _check(answer)
        return answer

    def _streamed(self, body: dict[str, Any]) -> Generator[list[Response]]:
        with (
            _naming(self._deployment),
            self._http.stream("POST", self._path, content=msgspec.json.encode(body)) as answer,
        ):
            if not answer.is_success:
                answer.read()
            _check(answer)
            for line in answer.iter_lines():
                if line.startswith(_DATA):
                    yield _responses_of(line.removeprefix(_DATA))

    @property
    def _path(self) -> str:
        return f"/mii/{quote(self._deployment.name, safe='')}"


def terminate(deployment: Deployment, *, patience_s: float = 60.0) -> None:
    """End a deployment and wait until it has; no error if it has ended already.

    Raises `Unavailable` if it still works on requests when `patience_s` is over.
    """
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(deployment.pid)
        try:
            if not deployment.is_running:  # asked of the process that we hold, not of a later one
                return
            signal.pidfd_send_signal(process, signal.SIGTERM)
            ending = select.poll()
            ending.register(process, select.POLLIN)
            if not ending.poll(patience_s * 1000):
                raise Unavailable(
                    f"Deployment {deployment.name!r} is still finishing its requests.",
                    remedy=f"It ends when they have, or with kill {deployment.pid}.",
                )
        finally:
            os.close(process)


@contextlib.contextmanager
def _naming(deployment: Deployment) -> Iterator[None]:
    """Failures of the network as what they mean."""
    try:
        yield
    except httpx2.TransportError as error:
        raise NoSuchServer(
            f"Deployment {deployment.name!r} does not answer: {error}.",
            remedy=f"Its log is {deployment.log}.",
        ) from None


def _check(answer: httpx2.Response) -> None:
    """Raise what the server says went wrong, if anything did."""
    if not answer.is_success:
        raise _failure(answer.content, answer.status_code, answer.headers.get("retry-after", "1"))


def _responses_of(data: str) -> list[Response]:
    """What an event says. An error in the middle of a stream is raised."""
    try:
        return _decode_responses(data)
    except msgspec.DecodeError:
        raise _failure(data.encode(), 500) from None


def _failure(content: bytes, status: int, retry_after_s: str = "1") -> PenstockError:
    try:
        error = msgspec.json.decode(content, type=ErrorBody).error
    except msgspec.DecodeError:
        return EngineFailed(f"Status {status}: {content[:_MAX_QUOTE].decode(errors='replace')}")
    match status:
        case 429:
            return Overloaded(error.message, retry_after_s=int(retry_after_s))
        case 503:
            return Unavailable(error.message)
        case _ if status < 500:
            return InvalidRequest(error.message, param=error.param)
        case _:
            return EngineFailed(error.message)
