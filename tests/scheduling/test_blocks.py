"""Allocation, sharing and eviction of KV blocks."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.scheduling.blocks import Blocks, block_hash, root_hash


def cached_chain(blocks: Blocks, length: int, salt: str = "") -> tuple[list[int], list[bytes]]:
    """Allocate, register and return a chain of full blocks with its hashes."""
    table, hashes = [], [root_hash(salt, "")]
    for index in range(length):
        hashes.append(block_hash(hashes[-1], [index] * blocks.block_size))
        table.append(blocks.allocate())
        blocks.register(table[-1], hashes[-1])
    return table, hashes[1:]


def test_a_released_chain_is_found_again():
    blocks = Blocks(4, 2)
    table, hashes = cached_chain(blocks, 3)
    blocks.release(table)
    assert blocks.match(hashes) == table
    assert blocks.num_free == 4


def test_blank_blocks_are_handed_out_before_cached_ones():
    blocks = Blocks(4, 2)
    table, hashes = cached_chain(blocks, 2)
    blocks.release(table)
    assert {blocks.allocate(), blocks.allocate()}.isdisjoint(table)
    assert blocks.match(hashes) == table


def test_the_end_of_the_least_recently_used_chain_is_evicted_first():
    blocks = Blocks(4, 2)
    old, old_hashes = cached_chain(blocks, 2, salt="old")
    new, new_hashes = cached_chain(blocks, 2, salt="new")
    blocks.release(old)
    blocks.release(new)
    assert blocks.allocate() == old[1]
    assert blocks.match(old_hashes) == old[:1]
    assert blocks.match(new_hashes) == new


def test_using_a_cached_block_again_makes_it_the_most_recent():
    blocks = Blocks(2, 2)
    first, _ = cached_chain(blocks, 1, salt="first")
    second, _ = cached_chain(blocks, 1, salt="second")
    blocks.release(first)
    blocks.release(second)
    blocks.share(first[0])
    blocks.release(first)
    assert blocks.allocate() == second[0]


def test_a_shared_block_is_free_only_when_its_last_holder_leaves():
    blocks = Blocks(2, 2)
    table, _ = cached_chain(blocks, 1)
    blocks.share(table[0])
    blocks.release(table)
    assert blocks.num_used == 1
    blocks.release(table)
    assert blocks.num_used == 0


def test_the_first_block_registered_under_a_hash_keeps_it():
    blocks = Blocks(4, 2)
    first, hashes = cached_chain(blocks, 1)
    cached_chain(blocks, 1)
    assert blocks.match(hashes) == first


def test_without_prefix_caching_nothing_is_found():
    blocks = Blocks(4, 2, prefix_caching=False)
    table, hashes = cached_chain(blocks, 2)
    blocks.release(table)
    assert blocks.match(hashes) == []


def test_a_hash_stands_for_everything_before_it():
    assert block_hash(root_hash("", ""), [1, 2]) != block_hash(root_hash("a", ""), [1, 2])
    assert root_hash("ab", "c") != root_hash("a", "bc")
    assert block_hash(block_hash(b"", [1]), [2]) != block_hash(block_hash(b"", [2]), [1])


@given(st.lists(st.sampled_from(["allocate", "release", "share"]), max_size=60), st.data())
def test_no_block_is_ever_lost_or_held_twice(actions, data):
    blocks, held, salt = Blocks(5, 2), [], 0
    for action in actions:
        if action == "allocate" and blocks.num_free:
            salt += 1
            held += cached_chain(blocks, 1, salt=str(salt))[0]
        elif action == "release" and held:
            blocks.release([held.pop(data.draw(st.integers(0, len(held) - 1)))])
        elif action == "share" and held:
            held.append(data.draw(st.sampled_from(held)))
            blocks.share(held[-1])
        assert blocks.ref_counts == [held.count(block) for block in range(5)]
        assert blocks.num_free == blocks.ref_counts.count(0)


def test_forgotten_prefixes_are_not_found_and_their_blocks_are_free_again():
    blocks = Blocks(4, 2)
    idle, idle_hashes = cached_chain(blocks, 2, salt="idle")
    used, used_hashes = cached_chain(blocks, 2, salt="used")
    blocks.release(idle)
    blocks.forget()
    assert blocks.match(idle_hashes) == blocks.match(used_hashes) == []
    assert blocks.num_free == 2
    blocks.register(used[0], used_hashes[0])
    assert blocks.match(used_hashes) == used[:1]
    blocks.release(used)
    assert sorted(blocks.allocate() for _ in range(4)) == sorted(idle + used)
