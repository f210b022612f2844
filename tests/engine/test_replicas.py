"""Several engines behind one front. They follow a script, and are processes nonetheless."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import pytest
from benchmarks.front.scripted_engine import VARIABLE, Pace

from penstock import AsyncLLM, SamplingParams
from penstock.engine import engine_process
from penstock.engine.front_settings import FrontSettings
from penstock.engine.prefix_map import CHUNK
from penstock.engine.replicas import COMPLETION_TOKENS, summed
from penstock.vocabulary.errors import (
    EngineFailed,
    InvalidRequest,
    Overloaded,
    SettingsError,
    Unavailable,
)
from penstock.vocabulary.messages import EngineStats

ROOT = str(Path(__file__).parents[2])
PACE = Pace(step_s=0.005, max_num_seqs=100)
SHORT = SamplingParams(max_tokens=3)
LONG = SamplingParams(max_tokens=100_000)

ONE_FAILS = """
import socket, sys
from penstock.engine.wire import LENGTH, Failed, decode_to_engine, frame
from benchmarks.front import scripted_engine

theirs = socket.socket(fileno=int(sys.argv[1]))
header = theirs.recv(LENGTH.size, socket.MSG_PEEK)
[length] = LENGTH.unpack(header)
start = decode_to_engine(theirs.recv(LENGTH.size + length, socket.MSG_PEEK)[LENGTH.size:])
if start.share.number == 1:
    theirs.sendall(frame(Failed(kind="SettingsError", message="There is no device for me.")))
else:
    theirs.detach()
    scripted_engine.main()
"""


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    """Where engines would be started, scripts are, of any pace."""

    def pace(pace: Pace) -> None:
        monkeypatch.setenv(VARIABLE, msgspec.json.encode(pace).decode())

    command = (sys.executable, "-m", "benchmarks.front.scripted_engine")
    monkeypatch.setattr(engine_process, "COMMAND", command)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    pace(PACE)
    return pace


def several(replicas: int, **front) -> AsyncLLM:
    return AsyncLLM(front=FrontSettings(replicas=replicas, **front))


def loads(llm: AsyncLLM) -> list[int]:
    return [replica.load for replica in llm.replicas]


def prompt(number: int, *, length: int = 10) -> list[int]:
    return [300 + number] * length


async def text(generation) -> str:
    return "".join([delta.text async for delta in generation])


async def until(holds) -> None:
    async with asyncio.timeout(100):
        while not holds():
            await asyncio.sleep(0.01)


async def test_requests_go_to_the_engine_that_has_least_to_do():
    async with several(3) as llm:
        many = [llm.submit(prompt(number), LONG) for number in range(6)]
        assert loads(llm) == [2, 2, 2]
        llm.submit(prompt(7), SamplingParams(n=3, max_tokens=100_000))
        assert sorted(loads(llm)) == [2, 2, 5]
        many += [llm.submit(prompt(number), LONG) for number in range(6)]
        assert loads(llm) == [5, 5, 5]
        await check_that_steps_are_told_in_one_row(llm)
        for generation in many[1:]:
            generation.cancel()
        await until(lambda: sum(replica.stats.num_running for replica in llm.replicas) == 2)
        assert sum(loads(llm)) == 1 + 3
        assert await text(llm.submit(prompt(0), SHORT))
        with pytest.raises(InvalidRequest, match="in use"):
            llm.submit(prompt(0), SHORT, request_id=many[0].request_id)
    with pytest.raises(EngineFailed, match="stopped"):
        await text(many[0])


async def test_what_comes_late_of_a_cancelled_request_is_not_another_s_of_the_same_id():
    async with several(1) as llm:
        deltas = aiter(llm.submit(prompt(0), LONG, request_id="mine"))
        await anext(deltas)
        time.sleep(0.05)  # nobody listens, and the engine goes on
        await deltas.aclose()
        again = llm.submit(prompt(0), SHORT, request_id="mine")
        assert [len(delta.token_ids) async for delta in again] == [1, 1, 1]


async def check_that_steps_are_told_in_one_row(llm: AsyncLLM) -> None:
    await until(lambda: {step.replica for step in llm.steps.after(0)} == {0, 1, 2})
    steps = llm.steps.after(0)
    first = steps[0].number
    assert [step.number for step in steps] == list(range(first, first + len(steps)))


async def test_what_begins_alike_goes_where_that_was_computed_before():
    async with several(3) as llm:
        chosen = {}
        for turn in range(3):
            for topic in range(3):
                asked = [*prompt(topic, length=2 * CHUNK), *prompt(turn)]
                generation = llm.submit(asked, SHORT)
                chosen[turn, topic] = loads(llm).index(1)
                await text(generation)
        assert len({chosen[0, topic] for topic in range(3)}) == 3
        assert all(chosen[turn, topic] == chosen[0, topic] for turn, topic in chosen)
        check_that_tenants_are_told_apart(llm)


def check_that_tenants_are_told_apart(llm: AsyncLLM) -> None:
    known = prompt(0, length=20 * CHUNK)
    for tenant in ("one", "one", "another"):
        llm.submit(known, LONG, salt=tenant)
    assert sorted(loads(llm)) == [0, 1, 2]


async def test_a_known_beginning_outweighs_as_many_others_as_its_tokens_are_worth():
    num_worth = 3
    known = prompt(0, length=num_worth * COMPLETION_TOKENS)
    async with several(2) as llm:
        first = llm.submit(known, LONG)
        place = loads(llm).index(1)
        for already in range(1, num_worth):
            llm.submit(known, LONG)
            assert loads(llm)[place] == already + 1
        llm.submit(known, LONG)
        assert loads(llm)[1 - place] == 1
        first.cancel()


async def test_prefixes_that_are_forgotten_draw_nobody():
    known = prompt(0, length=20 * CHUNK)
    async with several(2) as llm:
        busy = llm.submit(known, LONG)
        llm.submit(known, LONG)
        assert sorted(loads(llm)) == [0, 2]
        llm.reset_prefix_cache()
        llm.submit(known, LONG)
        assert sorted(loads(llm)) == [1, 2]
        busy.cancel()


async def test_the_queue_of_each_is_bounded_and_full_means_that_all_are(scripted):
    scripted(Pace(step_s=0.005, max_num_seqs=1))
    async with several(2, max_waiting=1) as llm:
        assert llm.max_in_flight == 4
        busy = [llm.submit(prompt(number), LONG) for number in range(3)]
        with pytest.raises(Overloaded, match="3 completions"):
            llm.submit(prompt(9), SamplingParams(n=2))
        llm.check_room()  # for one there is
        busy.append(llm.submit(prompt(3), LONG))
        assert loads(llm) == [2, 2]
        with pytest.raises(Overloaded) as refusal:
            llm.submit(prompt(9), LONG)
        assert refusal.value.retry_after_s >= 1
        with pytest.raises(Overloaded, match="4 completions"):
            llm.check_room()
        with pytest.raises(InvalidRequest, match="3 completions are more than the 2"):
            llm.submit(prompt(9), SamplingParams(n=3))
        await until(lambda: llm.stats.num_waiting == 2)
        busy[0].cancel()
        llm.submit(prompt(9), LONG)
        assert loads(llm) == [2, 2]


async def test_a_prompt_does_not_wait_where_it_is_cached_if_there_is_no_room(scripted):
    scripted(Pace(step_s=0.005, max_num_seqs=1))
    known = prompt(0, length=20 * CHUNK)
    async with several(2, max_waiting=0) as llm:
        llm.submit(known, LONG)
        llm.submit(known, LONG)
        assert loads(llm) == [1, 1]


async def test_an_engine_that_dies_takes_only_its_own_requests_with_it():
    async with several(2, heartbeat_timeout_s=600, watchdog_s=600) as llm:
        victim, other = llm.replicas
        for replica in llm.replicas:
            os.kill(replica.pid, signal.SIGSTOP)  # so that no answer ends before one is killed
        running = [llm.submit(prompt(number), SHORT) for number in range(6)]
        doomed = [each for each in running if victim.holds(each.request_id)]
        spared = [each for each in running if each not in doomed]
        assert len(doomed) == len(spared) == 3
        os.kill(victim.pid, signal.SIGKILL)
        for generation in doomed:
            with pytest.raises(EngineFailed, match="died"):
                await text(generation)
        assert llm.is_ready and not victim.is_ready and victim.pid is None
        os.kill(other.pid, signal.SIGCONT)
        assert await text(llm.submit(prompt(9), SHORT))
        assert all(await asyncio.gather(*map(text, spared)))
        await until(lambda: victim.is_ready)
        again = [llm.submit(prompt(number), LONG) for number in range(2)]
        assert loads(llm) == [1, 1]
        assert victim.holds(again[0].request_id) != victim.holds(again[1].request_id)


async def test_nobody_is_sent_to_an_engine_whose_cache_died_with_it_for_that_cache_s_sake():
    known = prompt(0, length=20 * CHUNK)
    async with several(2) as llm:
        generation = llm.submit(known, LONG)
        victim = next(replica for replica in llm.replicas if replica.load)
        os.kill(victim.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            await text(generation)
        await until(lambda: victim.is_ready)
        llm.submit(known, LONG)
        assert not victim.load, "it is the other's turn"


async def test_while_all_are_dead_nothing_is_taken():
    async with several(2) as llm:
        for replica in llm.replicas:
            os.kill(replica.pid, signal.SIGKILL)
        await until(lambda: not llm.is_ready)
        with pytest.raises(Unavailable, match="started again"):
            llm.submit(prompt(0), SHORT)
        await until(lambda: all(replica.is_ready for replica in llm.replicas))
        assert await text(llm.submit(prompt(0), SHORT))


async def test_an_engine_that_stands_still_gets_nothing_new():
    async with several(2, heartbeat_timeout_s=2, watchdog_s=600) as llm:
        stuck, other = llm.replicas
        os.kill(stuck.pid, signal.SIGSTOP)
        await until(lambda: other.is_ready and not stuck.is_ready)
        taken = [llm.submit(prompt(number), SHORT) for number in range(3)]
        assert other.load == 3 and stuck.is_running
        assert all(await asyncio.gather(*map(text, taken)))
        os.kill(stuck.pid, signal.SIGCONT)
        await until(lambda: stuck.is_ready)


async def test_an_engine_that_stands_still_for_long_is_replaced():
    async with several(2, heartbeat_timeout_s=1, watchdog_s=1) as llm:
        stuck = llm.replicas[0]
        pid = stuck.pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: stuck.is_ready and stuck.pid != pid)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        taken = [llm.submit(prompt(number), SHORT) for number in range(2)]
        assert stuck.load == 1, "the new one takes its turn"
        assert all(await asyncio.gather(*map(text, taken)))


async def test_if_one_cannot_start_all_are_stopped_and_the_reason_is_told(monkeypatch):
    def children() -> set[str]:
        tasks = Path("/proc/self/task").glob("*/children")
        return {pid for file in tasks for pid in file.read_text().split()}

    before = children()
    monkeypatch.setattr(engine_process, "COMMAND", (sys.executable, "-c", ONE_FAILS))
    llm = several(3)
    with pytest.raises(SettingsError, match="no device for me"):
        await llm.start()
    assert children() == before


def test_settings_that_disagree_are_refused_before_anything_starts():
    with pytest.raises(SettingsError, match="one device"):
        AsyncLLM(device="cuda:0", front=FrontSettings(replicas=2))
    with pytest.raises(SettingsError, match="both say where"):
        AsyncLLM(device="cpu", front=FrontSettings(device_map=[[0]]))


def test_the_statistics_of_several_are_added_up():
    one = EngineStats(num_running=1, num_blocks=10, busy_s=0.5, limit_bytes_per_s=2.0)
    two = EngineStats(num_running=2, num_blocks=10, prefix_hits=7)
    assert summed([one, two]) == EngineStats(
        num_running=3, num_blocks=20, busy_s=0.5, prefix_hits=7, limit_bytes_per_s=2.0
    )
    assert summed([]) == EngineStats() and summed([one]) == one
