"""A deployment's own process: `python -m penstock.server.deployments.process FD`.

It reads what to serve from standard input, leaves the process that started it, and says on FD
whether the server is up.
"""

import os
import sys
from typing import BinaryIO


def main() -> None:
    """Become a child of nobody, then serve. Forked before anything could start a thread."""
    launch = sys.stdin.buffer.read()
    if os.fork():
        os._exit(0)
    with os.fdopen(int(sys.argv[1]), "wb") as report:
        sys.exit(_serve(launch, report))


def _serve(launch: bytes, report: BinaryIO) -> int:
    from penstock.server.deployments.serving import serve_deployment

    return serve_deployment(launch, report)


if __name__ == "__main__":
    main()
