"""The scripted engine speaks the protocol of today, and answers as a real one would."""

import asyncio

import pytest
from benchmarks.front.load import READY, ask, completion
from benchmarks.front.scripted_engine import Pace
from benchmarks.front.server import Front, served
from benchmarks.front.stretch import stretch

STEP_S = 0.002


@pytest.fixture(scope="module")
def front():
    with served(Pace(step_s=STEP_S, max_num_seqs=2)) as front:
        yield front


async def test_the_scripted_engine_gives_each_request_its_tokens(front):
    assert (await ask(front, READY)).status == 200
    answer = await ask(front, completion(stream=True, max_tokens=5))
    assert (answer.status, answer.num_events) == (200, 5)


def test_the_memory_of_both_processes_is_seen(front):
    assert front.resident_bytes() > front.engine_resident_bytes() > 0


async def test_tokens_and_processor_time_of_a_stretch_are_told(front):
    asked = asyncio.create_task(ask(front, completion(max_tokens=100_000)))
    seen = await stretch(front, after_s=0.2, seconds=0.5)
    while not seen.num_tokens:  # where other work keeps the engine waiting
        seen = await stretch(front, after_s=0, seconds=0.5)
    assert not asked.done()
    asked.cancel()
    assert seen.num_tokens <= 2 * seen.seconds / STEP_S
    assert seen.seconds >= 0.5
    assert seen.cpu_s.keys() == {"client", "front", "engine"}
    assert all(cpu_s >= 0 for cpu_s in seen.cpu_s.values())


async def test_a_connection_that_ends_without_an_answer_is_an_error():
    async def hang_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            await ask(Front("127.0.0.1", port, pid=0), READY)
