"""A server over a scripted engine, in a process that a test may send signals to.

Arguments: seconds per token, and the drain timeout.
"""

import asyncio
import logging
import sys

from penstock.server.serve import serve
from penstock.server.settings import ServerSettings
from tests.server.scripted_llm import Script, ScriptedLLM

if __name__ == "__main__":
    delay_s, drain_timeout_s = map(float, sys.argv[1:])
    logging.basicConfig(level=logging.WARNING)
    llm = ScriptedLLM(Script("Hello, world", delay_s=delay_s))
    settings = ServerSettings(port=0, drain_timeout_s=drain_timeout_s)
    sys.exit(asyncio.run(serve(llm, settings, on_ready=lambda url: print(url, flush=True))))
