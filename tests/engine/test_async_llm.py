"""`AsyncLLM`: the same engine in a process of its own, with the embedded model."""

import asyncio
import os
import signal

import pytest

from penstock import AsyncLLM, SamplingParams
from penstock.engine.front_settings import FrontSettings
from penstock.vocabulary.errors import EngineFailed, InvalidRequest, Overloaded, SettingsError

GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
LONG = SamplingParams(max_tokens=1500, ignore_eos=True)


async def text(generation) -> str:
    return "".join([delta.text async for delta in generation])


async def until(holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


async def test_the_life_of_an_async_llm():
    """One process, since starting one takes seconds, and everything that can happen to it."""
    front = FrontSettings(max_waiting=1)
    async with AsyncLLM(front=front, max_num_seqs=1, token_budget=64, kv_cache_gib=0.1) as llm:
        assert llm.is_ready and llm.model_name == "penstock-default"
        prompt = llm.tokenizer.encode("import os\n")
        answer = await text(llm.submit(prompt, GREEDY))
        assert answer and await text(llm.submit(prompt, GREEDY)) == answer
        check_that_what_cannot_be_is_refused(llm, prompt)
        await check_that_special_tokens_can_be_shown(llm, prompt)
        check_that_what_cannot_be_sent_is_not_counted(llm, prompt)
        await check_that_an_id_is_free_once_its_request_is_over(llm, prompt, answer)
        await check_that_a_prompt_is_embedded(llm, prompt)
        await check_that_what_is_cancelled_or_left_frees_its_blocks(llm, prompt)
        await check_that_a_dead_engine_is_replaced(llm, prompt)
        assert await text(llm.submit(prompt, GREEDY)) == answer
        unfinished = llm.submit(prompt, LONG)
    with pytest.raises(EngineFailed, match="stopped"):
        await text(unfinished)


def check_that_what_cannot_be_sent_is_not_counted(llm: AsyncLLM, prompt: list[int]) -> None:
    with pytest.raises(UnicodeEncodeError):
        llm.submit(prompt, GREEDY, salt="\ud800")
    assert llm.num_in_flight == 0


async def check_that_special_tokens_can_be_shown(llm: AsyncLLM, prompt: list[int]) -> None:
    spelling, id_ = next(iter(llm.tokenizer.special_tokens.items()))
    only_that = SamplingParams(max_tokens=2, allowed_token_ids=[id_], ignore_eos=True)
    assert await text(llm.submit(prompt, only_that)) == ""
    shown = llm.submit(prompt, only_that, shown_token_ids=frozenset({id_}))
    assert await text(shown) == 2 * spelling


async def check_that_an_id_is_free_once_its_request_is_over(
    llm: AsyncLLM, prompt: list[int], answer: str
) -> None:
    """Even if nobody has read the former one to its end."""
    former = llm.submit(prompt, GREEDY, request_id="mine")
    deltas = aiter(former)
    await anext(deltas)
    await until(lambda: not llm.num_in_flight)
    again = llm.submit(prompt, GREEDY, request_id="mine")
    await deltas.aclose()
    former.cancel()
    assert await text(again) == answer


async def check_that_a_prompt_is_embedded(llm: AsyncLLM, prompt: list[int]) -> None:
    [delta] = [delta async for delta in llm.submit(prompt, GREEDY, embeds=True)]
    assert len(delta.embedding) == llm.embedding_size
    assert sum(x * x for x in delta.embedding) == pytest.approx(1)
    assert llm.end_token_ids


def check_that_what_cannot_be_is_refused(llm: AsyncLLM, prompt: list[int]) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        llm.submit([], GREEDY)
    with pytest.raises(InvalidRequest, match="3 completions are more than the 2"):
        llm.submit(prompt, SamplingParams(n=3))
    running, waiting = llm.submit(prompt, LONG), llm.submit(prompt, LONG)
    with pytest.raises(InvalidRequest, match="in use"):
        llm.submit(prompt, LONG, request_id=running.request_id)
    with pytest.raises(Overloaded) as refusal:
        llm.submit(prompt, LONG)
    assert refusal.value.retry_after_s >= 1
    with pytest.raises(Overloaded, match="2 completions"):
        llm.check_room()
    for generation in (running, waiting, running):
        generation.cancel()
    llm.check_room()


async def check_that_what_is_cancelled_or_left_frees_its_blocks(
    llm: AsyncLLM, prompt: list[int]
) -> None:
    async for delta in (stream := llm.submit(prompt, LONG)):
        assert delta.token_ids
        break
    stream.cancel()
    await until(lambda: llm.stats.num_running == llm.stats.num_blocks_used == 0)
    assert llm.num_in_flight == 0


async def check_that_a_dead_engine_is_replaced(llm: AsyncLLM, prompt: list[int]) -> None:
    doomed = llm.submit(prompt, LONG)
    os.kill(llm.replicas[0].pid, signal.SIGKILL)
    with pytest.raises(EngineFailed, match="died"):
        await text(doomed)
    assert not llm.is_ready
    await until(lambda: llm.is_ready)


async def test_what_the_engine_process_cannot_do_is_said_by_start():
    llm = AsyncLLM(kv_cache_gib=0.00001)
    with pytest.raises(SettingsError, match="KV cache"):
        await llm.start()
    await llm.close()
