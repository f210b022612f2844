// Where to cut: the thresholds of top-k, top-p and typical sampling, found without a sort.
#pragma once

#include "row.h"

namespace penstock::PENSTOCK_ISA {

struct Reached {
  int32_t bucket;
  double before;  // the weight of all buckets below it
};

// The first bucket with which the weights so far are the target, or the last that weighs anything.
PENSTOCK_INLINE Reached reach(const double* buckets, int32_t count, double target) {
  Reached reached{0, 0.0};
  double total = 0.0;
  for (int32_t i = 0; i < count && total < target; ++i) {
    if (buckets[i] == 0.0) continue;
    reached = {i, total};
    total += buckets[i];
  }
  return reached;
}

// The smallest of `count` keys, row.keys with row.weights, such that those up to it weigh `target`,
// or the largest. Keys are the bits of floats >= 0, whose order is that of the floats: they are
// settled from the top, 11, 10 and 10, by histograms of the keys that begin with what is settled.
PENSTOCK_INLINE float settle(const Row& row, int64_t count, double target) {
  int32_t settled = 0;
  for (int place = 31, shift = 20; shift >= 0; place = shift, shift -= 10) {
    const int32_t width = 1 << (place - shift);
    for (int32_t i = 0; i < width; ++i) row.buckets[i] = 0.0;
    for (int64_t i = 0; i < count; ++i) {
      const bool begins = place == 31 || row.keys[i] >> place == settled;
      if (begins) row.buckets[(row.keys[i] >> shift) & (width - 1)] += row.weights[i];
    }
    const Reached reached = reach(row.buckets, width, target);
    target -= reached.before;
    settled = settled << (place - shift) | reached.bucket;
  }
  float key;
  __builtin_memcpy(&key, &settled, sizeof key);
  return key;
}

// f(x) of every block of logits in which something may be kept and no farther than `bound` from the
// centre.
template <class F>
PENSTOCK_INLINE void over_near(const Row& row, float bound, F f) {
  const float farthest = row.centre + bound < row.limit ? row.centre + bound : row.limit;
  float padded[kBlock];
  for (int64_t block = 0; block < row.blocks; ++block) {
    if (distance(row, row.largest[block]) <= farthest) f(block_of(row, block, padded));
  }
}

// Sixteenths of a nat from the centre; what is not kept must not reach it.
PENSTOCK_INLINE Ints coarsely(Floats from_centre) {
  constexpr float kBucketsPerNat = 16.0f;
  static_assert(kFarthest * kBucketsPerNat < kBuckets);
  return __builtin_convertvector(from_centre * kBucketsPerNat, Ints);
}

// Appends those of a vector of tokens that are meant; the new number of keys.
PENSTOCK_INLINE int64_t collect(Row& row, int64_t count, const Placed& token, Ints meant, Floats weights) {
  int32_t found[kLanes];
  float keys[kLanes], weighed[kLanes];
  store(found, meant);
  store(keys, token.from_centre);
  store(weighed, weights);
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) {
    __builtin_memcpy(row.keys + count, keys + lane, sizeof(float));
    row.weights[count] = weighed[lane];
    count -= found[lane];
  }
  return count;
}

// How far from the centre one must look at most for what weighs `target`: where the likeliest tokens
// of the blocks alone weigh as much, if they do.
template <class Weigh>
PENSTOCK_INLINE float bound_of(Row& row, double target, Weigh weigh) {
  int64_t count = 0;
  for (int64_t block = 0; block < row.blocks; block += kLanes) {
    const Placed token = place(row, row.largest + block);
    if (any(token.kept)) count = collect(row, count, token, token.kept, weigh(token));
  }
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += row.weights[i];
  if (total >= target) return settle(row, count, target);
  return row.centre > row.limit - row.centre ? row.centre : row.limit - row.centre;
}

// The distance from the centre within which lies what weighs `target`, of what is kept.
// weigh(token): the weights of a vector of tokens. A histogram of all that comes into question finds
// the coarse bucket where it lies; what is in there is settled.
template <class Weigh>
PENSTOCK_INLINE float weigh_out(Row& row, double target, Weigh weigh) {
  const float bound = bound_of(row, target, weigh);
  for (int i = 0; i < kBuckets; ++i) row.buckets[i] = 0.0;
  over_near(row, bound, [&](const float* x) {
    int32_t buckets[kBlock];
    float weights[kBlock];
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; i += kLanes) {
      const Placed token = place(row, x + i);
      const Ints near = token.kept & (token.from_centre <= bound);
      store(buckets + i, coarsely(near ? token.from_centre : Floats{}));
      store(weights + i, near ? weigh(token) : Floats{});
    }
    for (int i = 0; i < kBlock; ++i) row.buckets[buckets[i]] += weights[i];
  });
  const Reached reached = reach(row.buckets, kBuckets, target);
  int64_t count = 0;
  over_near(row, bound, [&](const float* x) {
    for (int i = 0; i < kBlock; i += kLanes) {
      const Placed token = place(row, x + i);
      const Ints near = token.kept & (token.from_centre <= bound);
      const Ints meant = near & (coarsely(near ? token.from_centre : Floats{}) == reached.bucket);
      if (any(meant)) count = collect(row, count, token, meant, weigh(token));
    }
  });
  return settle(row, count, target - reached.before);
}

// Keeps what is within the k-th smallest distance from the likeliest.
PENSTOCK_INLINE void keep_top_k(Row& row, int64_t k) {
  row.limit = weigh_out(row, static_cast<double>(k), [](const Placed&) { return broadcast(1.0f); });
}

// The distance from `centre`, from now on the row's, within which lies a share of what is kept.
// `total` is the mass of all that.
PENSTOCK_INLINE float holding(Row& row, float share, double total, float centre) {
  row.centre = centre;
  return weigh_out(row, share * total, [](const Placed& token) { return weight(token); });
}

}  // namespace penstock::PENSTOCK_ISA
