"""Serving for long costs no more memory than serving for a while."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from penstock import AsyncLLM, SamplingParams

BATCH = 1500
WARMUP = SamplingParams(max_tokens=200, temperature=2.0, ignore_eos=True)
SHORT = SamplingParams(max_tokens=2, ignore_eos=True)
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


async def serve(
    llm: AsyncLLM, chance: random.Random, params: SamplingParams = SHORT, count: int = BATCH
) -> None:
    """Answer so many requests, 64 at a time. A fifth of their prompts fill a block."""
    at_once = asyncio.Semaphore(64)

    async def one() -> None:
        async with at_once:
            prompt = [chance.randrange(5, 4000) for _ in range(chance.choice((1, 2, 3, 4, 17)))]
            assert [delta async for delta in llm.submit(prompt, params)]

    await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_memory_stays_flat_over_thousands_of_requests():
    async with AsyncLLM(kv_cache_gib=0.05) as llm:
        pids = {"front": os.getpid(), "engine": llm.replicas[0].pid}
        chance = random.Random(0)
        # until caches are full, such as that of the spellings of tokens
        await serve(llm, chance, WARMUP, 64)
        for _ in range(4):
            await serve(llm, chance)
        before = {name: resident_bytes(pid) for name, pid in pids.items()}
        for _ in range(4):
            await serve(llm, chance)
        grown = {
            name: (resident_bytes(pid) - before[name]) / (4 * BATCH) for name, pid in pids.items()
        }
        # the engine's figure wavers by a megabyte or two, as torch's own allocations do
        assert grown["front"] < 50 and grown["engine"] < 1000, grown
        assert llm.num_in_flight == llm.stats.num_blocks_used == 0
