"""The engine process: `python -m penstock.engine.process FD`, started by `AsyncLLM`.

It reads messages from the inherited Unix socket, steps while there is work, and writes what came
out. It ends when told to, and when the other side of the socket is gone.
"""

import faulthandler
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from penstock.engine.engine import Engine
from penstock.engine.host import process_age_s
from penstock.engine.loading import load_engine, prepare
from penstock.engine.log_format import set_up_logging
from penstock.engine.machine_use import measure_limits
from penstock.engine.settings import Resolved
from penstock.engine.wire import (
    LENGTH,
    Failed,
    FromEngine,
    Loading,
    Ready,
    Start,
    Stop,
    ToEngine,
    Turn,
    decode_to_engine,
    frame,
)
from penstock.vocabulary.errors import PenstockError
from penstock.vocabulary.messages import Cancel, Request, ResetPrefixCache

HEARTBEAT_S = 0.5

log = logging.getLogger("penstock.engine")


class Wake:
    """No message, but a reason to look whether there is work."""


class Connection:
    """The engine's end of the socket. A thread reads, so that messages queue up during a step."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._inbox: queue.SimpleQueue[ToEngine | Wake | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def send(self, message: FromEngine) -> None:
        self._socket.sendall(frame(message))

    def wake(self) -> None:
        """Have whoever waits for a message go on. For any thread."""
        self._inbox.put(Wake())

    def receive(self, timeout_s: float | None) -> ToEngine | Wake | None:
        """The next message; `Stop` once the other side is gone; None if none comes in time."""
        try:
            message = (
                self._inbox.get(timeout=timeout_s) if timeout_s != 0 else self._inbox.get_nowait()
            )
        except queue.Empty:
            return None
        return Stop() if message is None else message

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as stream:
                while header := stream.read(LENGTH.size):
                    self._inbox.put(decode_to_engine(stream.read(*LENGTH.unpack(header))))
        finally:  # an engine that can hear no more must not go on as if nobody spoke
            self._inbox.put(None)


def serve(connection: Connection) -> None:
    """Load what the first message asks for, then turn until told to stop."""
    start = connection.receive(None)
    if not isinstance(start, Start):
        return
    set_up_logging(start.log_format, level=os.environ.get("PENSTOCK_LOG", "INFO"))
    try:
        _serve(start, connection)
    except (BrokenPipeError, ConnectionResetError):  # also while it was being told of a failure
        log.info("the front process is gone; leaving")


def _serve(start: Start, connection: Connection) -> None:
    try:
        engine, resolved = _load(start, connection)
        engine.grammars.on_ready = connection.wake
        try:
            _turn(engine, resolved, connection)
        finally:
            engine.grammars.close()
    except (BrokenPipeError, ConnectionResetError):
        raise
    except PenstockError as error:
        connection.send(
            Failed(kind=type(error).__name__, message=error.message, remedy=error.remedy)
        )
        sys.exit(1)
    except Exception as error:
        log.exception("the engine broke")
        connection.send(Failed(kind=type(error).__name__, message=str(error)))
        sys.exit(1)


def _load(start: Start, connection: Connection) -> tuple[Engine, Resolved]:
    importing_s = process_age_s()
    prepared = prepare(start.settings, Path(start.model_dir), start.name, start.share)
    reported = 0.0

    def on_progress(done: int, total: int) -> None:
        nonlocal reported
        if done == total or time.monotonic() - reported > 0.1:
            reported = time.monotonic()
            connection.send(Loading(done=done, total=total))

    engine = load_engine(prepared, on_progress)
    loading_s = process_age_s() - importing_s
    spec = prepared.config.spec
    times = f"Start: {importing_s:.1f} s to import torch, {loading_s:.1f} s to load the model."
    connection.send(
        Ready(
            resolved=engine.resolved,
            num_threads=prepared.num_threads,
            notes=[*prepared.notes, times],
            sampling_defaults=prepared.config.sampling_defaults,
            end_token_ids=prepared.end_token_ids,
            embedding_size=spec.embedding_width or spec.hidden,
        )
    )
    return engine, engine.resolved


def _turn(engine: Engine, resolved: Resolved, connection: Connection) -> None:
    is_measured = False
    while True:
        message = connection.receive(0 if engine.has_work else HEARTBEAT_S)
        if message is None and not engine.has_work and not is_measured:
            engine.limits, is_measured = measure_limits(resolved), True  # nobody waits for this
        while message is not None:
            if isinstance(message, Stop):
                return
            if isinstance(message, Request):
                engine.add(message)
            elif isinstance(message, Cancel):
                engine.cancel(message)
            elif isinstance(message, ResetPrefixCache):
                engine.reset_prefix_cache()
            message = connection.receive(0)
        outputs = engine.step()
        connection.send(Turn(outputs=outputs, stats=engine.stats(), step=engine.last_step))


def main() -> None:
    """Signals are the front's business: it drains, then says stop. SIGUSR1 dumps all stacks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    serve(Connection(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
