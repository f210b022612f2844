"""What a front believes to be cached where."""

from penstock.engine.prefix_map import CHUNK, PrefixMap
from penstock.vocabulary.messages import Request
from penstock.vocabulary.sampling_params import SamplingParams

LONG = list(range(10 * CHUNK))


def request(prompt: list[int], **fields: str) -> Request:
    return Request(request_id="r", prompt_token_ids=prompt, sampling=SamplingParams(), **fields)


def test_a_prompt_is_known_where_it_was_sent_as_far_as_it_is_the_same():
    prefixes = PrefixMap(10**6)
    prefixes.sent(prefixes.chunks(request(LONG)), 1)
    same = prefixes.chunks(request(LONG))
    assert [prefixes.num_cached(same, replica) for replica in (0, 1, 2)] == [0, len(LONG), 0]
    longer = prefixes.chunks(request([*LONG, *range(5)]))
    assert prefixes.num_cached(longer, 1) == len(LONG)
    forks = prefixes.chunks(request([*LONG[: 3 * CHUNK + 5], *LONG]))
    assert prefixes.num_cached(forks, 1) == 3 * CHUNK
    begins_otherwise = prefixes.chunks(request([7, *LONG[1:]]))
    assert prefixes.num_cached(begins_otherwise, 1) == 0


def test_several_replicas_may_know_the_same_beginning_and_differ_later():
    prefixes = PrefixMap(10**6)
    prefixes.sent(prefixes.chunks(request(LONG)), 0)
    prefixes.sent(prefixes.chunks(request(LONG[: 4 * CHUNK])), 5)
    chunks = prefixes.chunks(request(LONG))
    assert prefixes.num_cached(chunks, 0) == len(LONG)
    assert prefixes.num_cached(chunks, 5) == 4 * CHUNK


def test_what_the_cache_keeps_apart_is_kept_apart():
    prefixes = PrefixMap(10**6)
    prefixes.sent(prefixes.chunks(request(LONG, salt="a")), 0)
    for other in (request(LONG), request(LONG, salt="b"), request(LONG, salt="a", adapter="x")):
        assert prefixes.num_cached(prefixes.chunks(other), 0) == 0
    assert prefixes.num_cached(prefixes.chunks(request(LONG, salt="a")), 0) == len(LONG)


def test_less_than_a_chunk_is_not_remembered():
    assert PrefixMap(10**6).chunks(request(LONG[: CHUNK - 1])) == []


def test_no_more_is_remembered_than_the_caches_hold_and_ends_go_before_beginnings():
    prefixes = PrefixMap(4 * CHUNK)
    first, second = request(LONG[: 3 * CHUNK]), request(LONG[CHUNK : 3 * CHUNK])
    prefixes.sent(prefixes.chunks(first), 0)
    prefixes.sent(prefixes.chunks(second), 0)
    assert prefixes.num_cached(prefixes.chunks(first), 0) == 2 * CHUNK
    assert prefixes.num_cached(prefixes.chunks(second), 0) == 2 * CHUNK
    prefixes.sent(prefixes.chunks(first), 0)
    assert prefixes.num_cached(prefixes.chunks(first), 0) == 3 * CHUNK
    assert prefixes.num_cached(prefixes.chunks(second), 0) == CHUNK


def test_what_a_replica_forgets_the_others_still_have():
    prefixes = PrefixMap(10**6)
    chunks = prefixes.chunks(request(LONG))
    for replica in (0, 1):
        prefixes.sent(chunks, replica)
    prefixes.forget(0)
    assert [prefixes.num_cached(chunks, replica) for replica in (0, 1)] == [0, len(LONG)]
    prefixes.forget(1)
    assert prefixes.num_cached(chunks, 1) == 0
