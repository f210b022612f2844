"""Where a row's distribution is cut, found without sorting.

Every option keeps the tokens that come first in some order. Here an order is a distance >= 0, a
float32: how far a logit lies below the best one, or how far a surprise lies from the entropy. Such
floats are ordered as their bits are as integers, so a cut is found digit by digit: one pass over
the row weighs all tokens up to each of sixteen candidates, and eight passes find the last of 31
bits. The cut is exact, equals stay together, and nothing is written.
"""

import triton
import triton.language as tl

FARTHEST_FINITE = tl.constexpr(0x7F7FFFFF)
"""The bits of the largest distance of a token that can be drawn."""
ANYWHERE = tl.constexpr(0x7FFFFFFF)
"""No distance has more."""


@triton.jit
def distances(logits, start, vocab_size, best, temperature, BLOCK: tl.constexpr):
    """How far a block's logits lie below the best, divided by the temperature: float32 [BLOCK].
    Infinity where there is no token, or none to be drawn.
    """
    token = start + tl.arange(0, BLOCK)
    logit = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
    logit = tl.where(logit != logit, float("-inf"), logit)
    return tl.where(logit == best, 0.0, (best - logit) / temperature)


@triton.jit
def bits_of(distance):
    """The bits of distances, which order them."""
    return distance.to(tl.int32, bitcast=True)


@triton.jit
def weights(distance, limit, mean, typical_limit):
    """Probabilities, the best token's being 1, of the tokens within both limits; 0 for others. The
    second one bounds how far a distance lies from the mean, which is how far the surprise lies from
    the entropy: each is its distance plus the same constant.
    """
    kept = (bits_of(distance) <= limit) & (bits_of(tl.abs(distance - mean)) <= typical_limit)
    return tl.where(kept, tl.exp(-distance), 0.0)


@triton.jit
def find_cut(
    logits, vocab_size, best, temperature, limit, mean, sought,
    COUNTS: tl.constexpr, TYPICAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The bits of the least distance, from the best or, with TYPICAL, from the mean, within which a
    row's tokens, as far as the limit keeps them, reach what is sought: so many of them with COUNTS,
    or so much weight.
    """
    digit = tl.arange(0, 16)
    cut = tl.sum(digit * 0, axis=0)
    for step in range(8):
        shift = 28 - 4 * step
        highest = tl.where(step == 0, 7, 15)
        candidates = cut + ((tl.minimum(digit, highest) << shift) | ((1 << shift) - 1))
        reached = tl.zeros([16], tl.float64)
        for start in range(0, vocab_size, BLOCK):
            distance = distances(logits, start, vocab_size, best, temperature, BLOCK)
            weight = weights(distance, limit, 0.0, ANYWHERE)
            if COUNTS:
                weight = (bits_of(distance) <= limit).to(tl.float32)
            if TYPICAL:
                distance = tl.abs(distance - mean)
            counted = bits_of(distance)[None, :] <= candidates[:, None]
            reached += tl.sum(tl.where(counted, weight[None, :], 0.0), axis=1)
        below = tl.sum((reached < sought).to(tl.int32), axis=0)
        cut += tl.minimum(below, highest) << shift
    return cut
