"""The front's handle on the engine process: start it, talk to it, notice its end."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

from penstock.engine.settings import OnProgress
from penstock.engine.wire import (
    LENGTH,
    Failed,
    FromEngine,
    Loading,
    Ready,
    Start,
    Stop,
    ToEngine,
    decode_from_engine,
    frame,
)
from penstock.vocabulary import errors
from penstock.vocabulary.errors import EngineFailed, PenstockError

COMMAND = (sys.executable, "-m", "penstock.engine.process")
"""What an engine process runs; it is given the number of its end of the socket."""

_STOP_S = 5.0


class EngineProcess:
    """One engine process and the socket to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def launch(cls, start: Start, on_progress: OnProgress) -> tuple["EngineProcess", Ready]:
        """Start a process and wait until its model is loaded.

        Raises what the process says went wrong (`ModelError`, `SettingsError`), or `EngineFailed`.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        engine = cls(process, reader, writer)
        try:
            engine.send(start)
            return engine, await engine._wait_until_ready(on_progress)
        except BaseException:
            await engine.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Queue a message; it is written as soon as the event loop turns."""
        self._writer.write(frame(message))

    async def messages(self) -> AsyncIterator[FromEngine]:
        """What the engine says, until it is gone."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                header = await self._reader.readexactly(LENGTH.size)
                body = await self._reader.readexactly(*LENGTH.unpack(header))
                yield decode_from_engine(body)

    def dump_stacks(self) -> None:
        """Have the process write where it stands to its standard error."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    async def close(self) -> int:
        """Ask the process to leave, then make it; the exit code."""
        if self._process.poll() is None and not self._writer.is_closing():
            self.send(Stop())
        with contextlib.suppress(ConnectionError):
            self._writer.close()
            await self._writer.wait_closed()
        try:
            return await asyncio.to_thread(self._process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return await asyncio.to_thread(self._process.wait)

    async def _wait_until_ready(self, on_progress: OnProgress) -> Ready:
        async for message in self.messages():
            match message:
                case Loading(done=done, total=total):
                    on_progress(done, total)
                case Ready():
                    return message
                case Failed():
                    raise failure(message)
        raise EngineFailed(
            "The engine process ended before its model was loaded.",
            remedy="Its last words are above; a kernel's out-of-memory kill leaves none.",
        )


def failure(message: Failed) -> PenstockError:
    """What the engine process said, as the error it was there."""
    kind = getattr(errors, message.kind, None)
    if isinstance(kind, type) and kind in (errors.ModelError, errors.SettingsError):
        return kind(message.message, remedy=message.remedy)
    return EngineFailed(f"The engine failed: {message.kind}: {message.message}")
