"""The scripted engine speaks the protocol of today, and answers as a real one would."""

import pytest
from benchmarks.front.load import READY, ask, completion
from benchmarks.front.scripted_engine import Pace
from benchmarks.front.server import served


@pytest.fixture(scope="module")
def front():
    with served(Pace(step_s=0.002, max_num_seqs=2)) as front:
        yield front


async def test_the_scripted_engine_gives_each_request_its_tokens(front):
    assert (await ask(front, READY)).status == 200
    answer = await ask(front, completion(stream=True, max_tokens=5))
    assert (answer.status, answer.num_events) == (200, 5)


def test_the_memory_of_both_processes_is_seen(front):
    assert front.resident_bytes() > front.engine_resident_bytes() > 0
