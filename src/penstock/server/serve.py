"""Running the server until somebody tells it to stop, and then letting it finish its work."""

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from penstock.server.app import app_around
from penstock.server.auth import is_loopback
from penstock.server.connection import limited_to
from penstock.server.engine_front import EngineFront
from penstock.server.front import Front, front_of
from penstock.server.keys import KeyRing
from penstock.server.settings import ServerSettings
from penstock.vocabulary.errors import SettingsError

logger = logging.getLogger(__name__)

# Longer than the minute after which common load balancers drop an idle connection: they close
# first, so none sends a request into a connection that we are just closing.
KEEP_ALIVE_S = 75

OTHER_OPEN_FILES = 256  # than connections: standard streams, the engine's socket, libraries

# By uvicorn, ten of which are a second, for changes of the key file.
TICKS_BETWEEN_LOOKS = 10

# What a request that was cut off gets to tell its client so.
LAST_WORDS_S = 2


async def serve(
    llm: EngineFront,
    settings: ServerSettings,
    *,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve `llm` until SIGTERM or SIGINT, in the main thread; the exit status.

    `on_ready` is told the URL once requests are welcome. At the first signal the server drains: it
    says that it is not ready, refuses new requests, and leaves with status 0 when the running ones
    have finished or `drain_timeout_s` is over. At the second signal it leaves at once, with
    status 1.
    Raises `SettingsError` if it cannot listen.
    """
    front = front_of(llm, settings)
    if not front.keys and not is_loopback(settings.host):
        logger.warning(
            "Whoever reaches %s may use this server: no API key is set. `penstock key` makes one.",
            settings.host,
        )
    listener = _listener(settings.host, settings.port)
    config = _config(front)
    server = _DrainingServer(config, front)
    _allow_open_files(settings.max_connections)
    url = _url(settings.host, listener.getsockname()[1], is_tls=config.is_ssl)
    server.on_started = lambda: on_ready(url)
    try:
        with listener:
            await server.run_on(listener)
    finally:
        if front.tracing:
            await asyncio.to_thread(front.tracing.close)
    return 1 if server.force_exit else 0


def _config(front: Front) -> uvicorn.Config:
    return uvicorn.Config(
        app_around(front),
        http=limited_to(front),
        ssl_certfile=front.settings.tls_cert,
        ssl_keyfile=front.settings.tls_key,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # it warns of requests that are no HTTP; those are counted, not logged
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
    )


class _DrainingServer(uvicorn.Server):
    """uvicorn's server, which at a signal goes on listening until its work is done.

    uvicorn's own would stop listening at once, so that nobody could ask whether it is ready, and
    would raise the signal anew at the end, so that the process could not exit with status 0.
    """

    on_started: Callable[[], None]

    def __init__(self, config: uvicorn.Config, front: Front) -> None:
        super().__init__(config)
        self._front = front

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until told to stop. Cancelled, it closes idle connections and waits for none."""
        try:
            await self.serve(sockets=[listener])
        except asyncio.CancelledError:
            self.force_exit = True
            await self.shutdown()
            raise

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._front.is_draining:
            self.force_exit = self.should_exit = True
        else:
            self._front.drain()

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter):
            return True
        if counter % TICKS_BETWEEN_LOOKS == 0:
            _refresh(self._front.keys)
        if not self._front.is_draining:
            return False
        if self._front.num_open and time.monotonic() >= self._front.drained_by:
            logger.warning("%d requests did not finish in time", self._front.num_open)
            self._front.cut_off()
            return True
        return not self._front.num_open


def _refresh(keys: KeyRing) -> None:
    """Nobody waits for an answer to what is wrong with a key file, so the log has to tell."""
    try:
        if keys.refresh():
            logger.warning("The key file has changed; there are %d keys now.", len(keys))
    except SettingsError as error:
        logger.error("The key file has changed, and all keys stay as they were: %s", error)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            remedy="Choose another --port, or 0 for a free one.",
        ) from None
    listener.setblocking(False)
    return listener


def _allow_open_files(num_connections: int) -> None:
    """Make room for so many connections, as far as that is ours to decide."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + OTHER_OPEN_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning(
            "This process may have %d files open, too few for %d connections: raise `ulimit -n`.",
            allowed,
            num_connections,
        )


def _url(host: str, port: int, *, is_tls: bool) -> str:
    """Where a client on this machine finds the server."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if is_tls else 'http'}://{shown}:{port}"
