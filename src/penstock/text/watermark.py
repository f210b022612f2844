"""The watermark of Kirchenbauer et al. (arXiv 2301.10226): green tokens, and how many there are.

The token before decides, together with a secret key, which tokens are green; an engine that marks
its texts prefers these, and whoever has the key counts them. Both sides are here. No torch.
"""

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from penstock.vocabulary.errors import InvalidRequest
from penstock.vocabulary.watermark import WatermarkReport

THRESHOLD = 4.0
"""The z-score above which a text counts as watermarked: one in 31,000 others does."""

_KEPT_LISTS = 1024  # each takes an eighth of a byte a token
_AT_ONCE = 8192  # tokens whose numbers fit into a processor's cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

_Words = npt.NDArray[np.uint64]


class Greens:
    """Which tokens are green behind another one, as `key` decides.

    Token t is green behind token p if number t of a sequence of random numbers is below `gamma`,
    the sequence being SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), seeded with BLAKE2b of p
    under the key. So one token's colour costs one number, whatever the size of the vocabulary.
    """

    def __init__(self, key: str) -> None:
        if not key:
            raise InvalidRequest("The watermark key is empty.", param="watermark_key")
        self._key = hashlib.blake2b(key.encode(), digest_size=32, person=b"penstock-mark").digest()
        self.of = lru_cache(maxsize=_KEPT_LISTS)(self._of)

    def are_green(
        self, before: Sequence[int], tokens: Sequence[int], gamma: float
    ) -> npt.NDArray[np.bool_]:
        """Whether each of `tokens` is green behind the token at the same place of `before`."""
        seeds = np.array([self._seed(token) for token in before], np.uint64)
        return _are_below(_numbers(seeds, np.array(tokens, np.uint64)), gamma)

    def _of(self, before: int, gamma: float, vocab_size: int) -> npt.NDArray[np.uint8]:
        """The green tokens behind `before`: one bit for each token of the vocabulary, packed."""
        seed = np.array(self._seed(before), np.uint64)
        parts = []
        for start in range(0, vocab_size, _AT_ONCE):
            places = np.arange(start, min(start + _AT_ONCE, vocab_size), dtype=np.uint64)
            parts.append(np.packbits(_are_below(_numbers(seed, places), gamma)))
        return np.concatenate(parts)

    def _seed(self, before: int) -> int:
        digest = hashlib.blake2b(before.to_bytes(8, "little"), digest_size=8, key=self._key)
        return int.from_bytes(digest.digest(), "little")


def _numbers(seeds: _Words, places: _Words) -> _Words:
    """SplitMix64's numbers at these places of the sequences with these seeds."""
    x = (places + np.uint64(1)) * _GOLDEN
    x += seeds
    x ^= x >> np.uint64(30)
    x *= _MIX1
    x ^= x >> np.uint64(27)
    x *= _MIX2
    x ^= x >> np.uint64(31)
    return x


def _are_below(numbers: _Words, gamma: float) -> npt.NDArray[np.bool_]:
    return numbers < np.uint64(int(gamma * 2.0**64))


def detect(token_ids: Sequence[int], key: str, *, gamma: float = 0.5) -> WatermarkReport:
    """Look for the watermark of `key` in a text that has been tokenized.

    A pair of tokens that occurs again counts once, since its colour is no new evidence (section
    3.2 of the paper). Raises `InvalidRequest` for a text with fewer than two tokens.
    """
    if not 0 < gamma < 1:
        raise InvalidRequest(f"gamma must be above 0 and below 1, not {gamma}.", param="gamma")
    pairs = dict.fromkeys(pairwise(token_ids))
    if not pairs:
        raise InvalidRequest(
            "The text has fewer than two tokens: nothing in it can be scored.",
            param="text",
            remedy="Give a longer text; about a hundred tokens are needed for a clear answer.",
        )
    before, tokens = zip(*pairs, strict=True)
    num_green = int(Greens(key).are_green(before, tokens, gamma).sum())
    expected = gamma * len(pairs)
    z_score = (num_green - expected) / math.sqrt(expected * (1 - gamma))
    return WatermarkReport(
        num_tokens=len(token_ids),
        num_scored=len(pairs),
        num_green=num_green,
        gamma=gamma,
        z_score=z_score,
        p_value=math.erfc(z_score / math.sqrt(2)) / 2,
        is_watermarked=z_score > THRESHOLD,
    )
