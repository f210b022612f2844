"""The command `penstock`, as a person types it."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from penstock.cli import main


def penstock(*arguments: str, **options) -> subprocess.CompletedProcess:
    """In a process of its own, which takes seconds to import torch."""
    return subprocess.run(
        [sys.executable, "-m", "penstock.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def typed(
    *arguments: str, input: str = "", env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess:
    """In this process, where torch is imported already. A traceback there is an exception here."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    status = 0
    with (
        mock.patch.object(sys, "argv", ["penstock", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode()))),
        mock.patch.dict(os.environ, env, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    said = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, *said)
