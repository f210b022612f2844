"""KV blocks: who holds them, which are free, and which hold a known prefix. Plain integers.

A block is `block_size` consecutive token positions of one sequence. Full blocks whose content has
been computed may be registered under a hash that stands for everything up to their last token;
sequences that begin alike then share them. A shared block is never written: only full blocks are
shared, and a sequence always has at least its last token left to compute, in a block of its own.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable


def root_hash(salt: str, adapter: str) -> bytes:
    """What a chain of blocks begins with: chains of different tenants or adapters never meet."""
    digest = hashlib.sha256()
    for part in (salt.encode(), adapter.encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def block_hash(parent: bytes, token_ids: list[int]) -> bytes:
    """SHA-256 over the parent's hash and this block's tokens. Nobody can make two collide."""
    return hashlib.sha256(parent + array("q", token_ids).tobytes()).digest()


class Blocks:
    """Allocation by reference counts, and the prefix cache with least-recently-used eviction.

    An unreferenced block is free even while it still holds a cached prefix; blocks without one are
    handed out first, then the cached ones in the order in which they were released.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.ref_counts = [0] * num_blocks
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # unreferenced, oldest first
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody references, whether or not they hold a cached prefix."""
        return len(self._blank) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks hold this many tokens."""
        return -(-num_tokens // self.block_size)

    def allocate(self) -> int:
        """A block of one's own. The caller has made sure that one is free."""
        if self._blank:
            block = self._blank.pop()
        else:
            block, _ = self._cached.popitem(last=False)
            del self._block_of[self._hash_of.pop(block)]
        self.ref_counts[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder of a block that is in use or in the prefix cache."""
        if self.ref_counts[block] == 0:
            del self._cached[block]
        self.ref_counts[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """One holder fewer for each. The last of a chain becomes evictable first: it is worth
        least.
        """
        for block in reversed(list(blocks)):
            self.ref_counts[block] -= 1
            if self.ref_counts[block] == 0:
                if block in self._hash_of:
                    self._cached[block] = None
                else:
                    self._blank.append(block)

    def register(self, block: int, hash_: bytes) -> None:
        """Say that a full block has been computed and may be shared under this hash."""
        if self.prefix_caching and hash_ not in self._block_of and block not in self._hash_of:
            self._block_of[hash_] = block
            self._hash_of[block] = hash_

    def forget(self) -> None:
        """Empty the prefix cache. Blocks in use stay so, but nobody finds them any more."""
        self._blank.extend(self._cached)
        for known in (self._cached, self._hash_of, self._block_of):
            known.clear()

    def match(self, hashes: Iterable[bytes]) -> list[int]:
        """The longest run of blocks, from the first hash on, that the prefix cache holds."""
        found = []
        for hash_ in hashes:
            block = self._block_of.get(hash_)
            if block is None:
                break
            found.append(block)
        return found
