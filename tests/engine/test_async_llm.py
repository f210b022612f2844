"""`AsyncLLM`: the same engine in a process of its own, with the embedded model."""

import asyncio
import os
import signal

import pytest

from penstock import AsyncLLM, SamplingParams
from penstock.engine.settings import FrontSettings
from penstock.vocabulary.errors import EngineFailed, InvalidRequest, Overloaded, SettingsError

LONG = SamplingParams(max_tokens=1500, ignore_eos=True)


async def text(generation) -> str:
    return "".join([delta.text async for delta in generation])


async def until(holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


async def test_the_life_of_an_async_llm():
    """One process, since starting one takes seconds: answers, cancellation, overload, death."""
    front = FrontSettings(max_waiting=1)
    async with AsyncLLM(front=front, max_num_seqs=1, token_budget=64, kv_cache_gib=0.1) as llm:
        prompt = llm.tokenizer.encode("import os\n")
        assert llm.is_ready and llm.model_name == "penstock-default"

        greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        first = await text(llm.submit(prompt, greedy))
        assert first and await text(llm.submit(prompt, greedy)) == first

        with pytest.raises(InvalidRequest, match="empty"):
            llm.submit([], greedy)
        with pytest.raises(InvalidRequest, match="3 completions are more than the 2"):
            llm.submit(prompt, SamplingParams(n=3))

        running, waiting = llm.submit(prompt, LONG), llm.submit(prompt, LONG)
        with pytest.raises(Overloaded) as refusal:
            llm.submit(prompt, LONG)
        assert refusal.value.retry_after_s >= 1
        with pytest.raises(InvalidRequest, match="in use"):
            llm.submit(prompt, LONG, request_id=running.request_id)

        running.cancel()
        waiting.cancel()
        running.cancel()
        await until(lambda: llm.stats.num_running == llm.stats.num_blocks_used == 0)
        assert llm.num_in_flight == 0

        async for delta in (stream := llm.submit(prompt, LONG)):
            assert delta.token_ids
            break
        stream.cancel()

        doomed = llm.submit(prompt, LONG)
        assert llm._engine is not None
        os.kill(llm._engine.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="died"):
            await text(doomed)
        assert not llm.is_ready
        await until(lambda: llm.is_ready)
        assert await text(llm.submit(prompt, greedy)) == first
        unfinished = llm.submit(prompt, LONG)
    with pytest.raises(EngineFailed, match="stopped"):
        await text(unfinished)


async def test_what_the_engine_process_cannot_do_is_said_by_start():
    llm = AsyncLLM(kv_cache_gib=0.00001)
    with pytest.raises(SettingsError, match="KV cache"):
        await llm.start()
    await llm.close()
