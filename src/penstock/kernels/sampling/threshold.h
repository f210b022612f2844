// Where to cut: the thresholds of top-k, top-p and typical sampling, found without a sort.
#pragma once

#include "row.h"

namespace penstock::PENSTOCK_ISA {

// The bits of a float above a place. Those of a float >= 0 are its order.
struct Beginning {
  int32_t bits;
  int place;
};

// A Beginning's bits, of an integer or of each in a vector.
template <class T>
PENSTOCK_INLINE T above(T bits, int place) {
  return bits >> place;
}

PENSTOCK_INLINE int32_t bits_of(float x) {
  int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// The smallest key such that those up to it weigh `target`, or the largest there is. Keys are floats
// >= 0. Their bits are settled from the top, 11, 10 and 10, each time by a histogram of the keys
// that begin with what is settled: scan(beginning, add) calls add(bits, weight) for these.
template <class Scan>
PENSTOCK_INLINE float weigh_out(double target, double* buckets, Scan scan) {
  Beginning settled{0, 31};
  for (int shift = 20; shift >= 0; shift -= 10) {
    const int32_t count = 1 << (settled.place - shift);
    for (int32_t i = 0; i < count; ++i) buckets[i] = 0.0;
    scan(settled, [=](int32_t bits, float weight) { buckets[(bits >> shift) & (count - 1)] += weight; });
    int32_t reached = 0;
    double before = 0.0, total = 0.0;
    for (int32_t i = 0; i < count && total < target; ++i) {
      if (buckets[i] == 0.0) continue;
      reached = i;
      before = total;
      total += buckets[i];
    }
    target -= before;
    settled = {settled.bits << (settled.place - shift) | reached, shift};
  }
  float key;
  __builtin_memcpy(&key, &settled.bits, sizeof key);
  return key;
}

// add(bits of the distance from the centre, weight) for what is kept and no farther than `bound`
// from the centre. Others of the same vector are added with weight 0.
template <bool kCount, class Add>
PENSTOCK_INLINE void add_kept(const Row& row, float bound, Beginning settled, Add add) {
  const float farthest = row.centre + bound < row.limit ? row.centre + bound : row.limit;
  float padded[kBlock];
  for (int64_t block = 0; block < row.blocks; ++block) {
    if (!(distance(row, row.largest[block]) <= farthest)) continue;
    const float* x = block_of(row, block, padded);
    for (int i = 0; i < kVectors; ++i) {
      const Weighed w = weigh(row, x + i * kLanes);
      const Ints keys = reinterpret_cast<Ints>(w.from_centre);
      const Ints meant = w.kept & (w.from_centre <= bound) & (above(keys, settled.place) == settled.bits);
      if (!any(meant)) continue;
      int32_t bits[kLanes];
      float weights[kLanes];
      store(bits, keys);
      store(weights, meant ? (kCount ? broadcast(1.0f) : w.weight) : Floats{});
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) add(bits[lane], weights[lane]);
    }
  }
}

// What is within the k-th smallest distance from the likeliest.
PENSTOCK_INLINE void keep_top_k(Row& row, int64_t k) {
  const double target = static_cast<double>(k);
  float bound = row.limit;
  if (k <= row.blocks) {
    // No farther than the k-th nearest block: each of the k has a token at least as near.
    const float of_blocks = weigh_out(target, row.buckets, [&row](Beginning settled, auto add) {
      for (int64_t block = 0; block < row.blocks; ++block) {
        const int32_t bits = bits_of(distance(row, row.largest[block]));
        if (above(bits, settled.place) == settled.bits) add(bits, 1.0f);
      }
    });
    bound = of_blocks < bound ? of_blocks : bound;
  }
  row.limit = weigh_out(target, row.buckets, [&row, bound](Beginning settled, auto add) {
    add_kept<true>(row, bound, settled, add);
  });
}

// The least distance from `centre` within which lies so great a share of what is kept. `total` is
// the mass of that.
PENSTOCK_INLINE float holding(Row& row, float share, double total, float centre) {
  // Even if there were nothing but tokens this far from the likeliest, they would not weigh what may
  // be left out; one more nat makes up for rounding.
  const double spare = (1.0 - share) * total / static_cast<double>(row.vocab);
  const float tail = 1.0f - __builtin_logf(static_cast<float>(spare));
  const float reach = tail < row.limit ? tail : row.limit;
  const float bound = centre > reach - centre ? centre : reach - centre;
  row.centre = centre;
  return weigh_out(share * total, row.buckets, [&row, bound](Beginning settled, auto add) {
    add_kept<false>(row, bound, settled, add);
  });
}

}  // namespace penstock::PENSTOCK_ISA
