"""A server over a scripted engine, in a process that a test may send signals to.

Its answers stand still after the first token until it is written to. Argument: the drain timeout.
"""

import asyncio
import logging
import sys
import threading

from penstock.server.serve import serve
from penstock.server.settings import ServerSettings
from tests.server.scripted_llm import Script, ScriptedLLM


async def main(drain_timeout_s: float) -> int:
    go_on = threading.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, go_on.set)
    llm = ScriptedLLM(Script("Hello, world", hangs_after=1, until=go_on))
    settings = ServerSettings(port=0, drain_timeout_s=drain_timeout_s)
    return await serve(llm, settings, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(asyncio.run(main(float(sys.argv[1]))))
