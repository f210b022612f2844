"""Which replica has which prompts in its prefix cache, as far as their front can tell."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

from penstock.vocabulary.messages import Request

CHUNK = 64
"""Tokens that are known or unknown together: finer would cost more than it tells."""
_MOST_CHUNKS = 65_536


class PrefixMap:
    """Remembers to which replicas prompts were sent, chunk by chunk.

    No replica is asked. What was sent to one is taken to be cached there until as much as all
    caches hold has been sent since, or the replica is said to have forgotten. A chunk goes by a
    hash of everything up to its end, the salt included, as blocks of the cache do.
    """

    def __init__(self, num_tokens: int) -> None:
        """`num_tokens` is what the caches of all replicas hold together."""
        self._max_chunks = min(_MOST_CHUNKS, num_tokens // CHUNK)
        self._holders: OrderedDict[int, int] = OrderedDict()  # a bit per replica; oldest first

    def chunks(self, request: Request) -> list[int]:
        """The hashes of a prompt's full chunks."""
        prompt, chunks = request.prompt_token_ids, []
        chunk = hash((request.salt, request.adapter))
        for start in range(0, len(prompt) - CHUNK + 1, CHUNK):
            chunk = hash((chunk, *prompt[start : start + CHUNK]))
            chunks.append(chunk)
        return chunks

    def num_cached(self, chunks: Sequence[int], replica: int) -> int:
        """How many tokens of these chunks, from the first on, a replica has."""
        known = takewhile(lambda chunk: self._holders.get(chunk, 0) >> replica & 1, chunks)
        return CHUNK * sum(1 for _ in known)

    def sent(self, chunks: Sequence[int], replica: int) -> None:
        """A prompt of these chunks goes to a replica now."""
        for chunk in reversed(chunks):  # what others may share is forgotten last
            self._holders[chunk] = self._holders.pop(chunk, 0) | 1 << replica
        while len(self._holders) > self._max_chunks:
            self._holders.popitem(last=False)

    def forget(self, replica: int) -> None:
        """Nothing is cached there any more."""
        left = ((chunk, bits & ~(1 << replica)) for chunk, bits in self._holders.items())
        self._holders = OrderedDict((chunk, bits) for chunk, bits in left if bits)
