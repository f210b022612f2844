// A row of logits in blocks of 64 tokens. The largest logit of every block says which blocks can
// be skipped; their masses say where a draw falls. A block's numbers are computed by one thread in
// one order, and blocks are added up in the order of the vocabulary, so that neither other rows nor
// the number of threads show in the result.
#pragma once

#include "../cpu/simd.h"
#include "../cpu/threads.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr int64_t kBlock = 64;
inline constexpr int kVectors = kBlock / kLanes;
inline constexpr int kBuckets = 2048;
inline constexpr float kInfinity = __builtin_inff();
inline constexpr float kFarthest = 87.3f;  // beyond it a weight is 0

// A token's distance from the likeliest is (best - logit) / temperature; its weight e^-distance.
// What is kept lies within `limit` of the likeliest and within `spread` of `centre`. NaN compares
// as false with everything: such a logit is never the best and never kept.
struct Row {
  const float* logits;
  int64_t vocab, blocks;
  float* largest;   // [blocks], logits, and as many minus infinities as fill a vector
  float* mass;      // [blocks], sums of the weights of what is kept
  float* moment;    // [blocks], sums of weight times distance
  double* buckets;  // [kBuckets]
  int32_t* keys;    // [vocab + 1]
  float* weights;   // [vocab + 1]
  bool split;       // among threads, since there are fewer rows than these
  float best = 0.0f, temperature = 1.0f;
  float limit = kFarthest, centre = 0.0f, spread = kInfinity;
};

// A block's logits: where they are, or a copy that ends in minus infinity.
PENSTOCK_INLINE const float* block_of(const Row& row, int64_t block, float* padded) {
  const float* first = row.logits + block * kBlock;
  const int64_t count = row.vocab - block * kBlock;
  if (count >= kBlock) return first;
  for (int64_t i = 0; i < kBlock; ++i) padded[i] = i < count ? first[i] : -kInfinity;
  return padded;
}

// f(first, end) over all blocks of the row, on all threads or on this one.
template <class F>
PENSTOCK_INLINE void over_blocks(const Row& row, F f) {
  if (row.split) {
    const int64_t parts = num_threads();
    parallel(parts, [&](int64_t part) {
      f(row.blocks * part / parts, row.blocks * (part + 1) / parts);
    });
  } else {
    f(0, row.blocks);
  }
}

// Fills `largest` and `best`.
PENSTOCK_INLINE void find_largest(Row& row) {
  over_blocks(row, [&row](int64_t first, int64_t end) {
    float padded[kBlock];
    for (int64_t block = first; block < end; ++block) {
      const float* x = block_of(row, block, padded);
      Floats most[2] = {broadcast(-kInfinity), broadcast(-kInfinity)};
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        most[i % 2] = maximum(load<Floats>(x + i * kLanes), most[i % 2]);
      }
      row.largest[block] = largest(maximum(most[0], most[1]));
    }
  });
  store(row.largest + row.blocks, broadcast(-kInfinity));
  row.best = -kInfinity;
  for (int64_t block = 0; block < row.blocks; ++block) {
    if (row.largest[block] > row.best) row.best = row.largest[block];
  }
}

PENSTOCK_INLINE bool is_finite(float x) { return x > -kInfinity && x < kInfinity; }

// The first of the likeliest tokens; 0 where no logit is a number above minus infinity.
PENSTOCK_INLINE int64_t first_best(const Row& row) {
  if (row.best == -kInfinity) return 0;
  int64_t token = 0;
  while (row.largest[token / kBlock] != row.best) token += kBlock;
  while (row.logits[token] != row.best) ++token;
  return token;
}

PENSTOCK_INLINE float distance(const Row& row, float logit) {
  return (row.best - logit) / row.temperature;
}

struct Placed {
  Floats distance, from_centre;
  Ints kept;
};

PENSTOCK_INLINE Placed place(const Row& row, const float* x) {
  const Floats d = (row.best - load<Floats>(x)) / row.temperature;
  const Floats from_centre = magnitude(d - row.centre);
  return {d, from_centre, (d <= row.limit) & (from_centre <= row.spread)};
}

// 0 for what is not kept.
PENSTOCK_INLINE Floats weight(const Placed& token) {
  const Floats e = exponential_in_range(-(token.kept ? token.distance : Floats{}));
  return token.kept ? e : Floats{};
}

struct Totals {
  double mass, mean;  // of what is kept: the sum of weights, and the mean distance
};

// Fills `mass`, and `moment` if the mean is asked for.

template <bool kMoment = false>
PENSTOCK_INLINE Totals add_up(Row& row) {
  over_blocks(row, [&row](int64_t first, int64_t end) {
    float padded[kBlock];
    for (int64_t block = first; block < end; ++block) {
      if (!(distance(row, row.largest[block]) <= row.limit)) {
        row.mass[block] = row.moment[block] = 0.0f;
        continue;
      }
      const float* x = block_of(row, block, padded);
      Floats mass[2] = {}, moment[2] = {};
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        const Placed token = place(row, x + i * kLanes);
        const Floats w = weight(token);
        mass[i % 2] += w;
        if (kMoment) moment[i % 2] += w * (token.kept ? token.distance : Floats{});
      }
      row.mass[block] = sum(mass[0] + mass[1]);
      if (kMoment) row.moment[block] = sum(moment[0] + moment[1]);
    }
  });
  double mass = 0.0, moment = 0.0;
  for (int64_t block = 0; block < row.blocks; ++block) {
    mass += row.mass[block];
    if (kMoment) moment += row.moment[block];
  }
  return {mass, moment / mass};
}

}  // namespace penstock::PENSTOCK_ISA
