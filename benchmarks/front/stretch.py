"""What a server did in a stretch of time, and what that took of the processors."""

import asyncio
import re
import time
from dataclasses import dataclass

from benchmarks.front.load import METRICS, text_of
from benchmarks.front.server import Front

_GENERATED = re.compile(r"^penstock_generation_tokens_total (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Stretch:
    """Tokens generated, and processor time by who took it. Answers would be counted worse: they end
    in bunches, since those that began together do.
    """

    seconds: float
    num_tokens: float
    cpu_s: dict[str, float]


async def stretch(front: Front, *, after_s: float, seconds: float) -> Stretch:
    """Look at a server twice."""
    await asyncio.sleep(after_s)
    before = await _since_start(front)
    await asyncio.sleep(seconds)
    after = await _since_start(front)
    return Stretch(
        after.seconds - before.seconds,
        after.num_tokens - before.num_tokens,
        {who: cpu_s - before.cpu_s[who] for who, cpu_s in after.cpu_s.items()},
    )


async def _since_start(front: Front) -> Stretch:
    found = _GENERATED.search(await text_of(front, METRICS))
    assert found, "the server does not count its tokens"
    cpu_s = {
        "client": time.process_time(),
        "front": front.cpu_s(),
        "engine": front.engine_cpu_s(),
    }
    return Stretch(time.monotonic(), float(found[1]), cpu_s)
