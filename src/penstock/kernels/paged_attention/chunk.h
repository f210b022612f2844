// What rows of queries read in one go: a chunk of keys and values, few enough to stay in the L1
// cache, and enough that what is done once per chunk is little.
#pragma once

#include "../cpu/simd.h"
#include "../kv_cache/layer.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr int kChunkKeys = 128;
inline constexpr int kChunkTiles = kChunkKeys / kTileTokens;

// Keys [D, 16] and values [16, stride] of each tile; scales [kChunkKeys], for int8 only. Tiles
// without a key that anyone may see are those of a neighbour, for computing without branches.
template <class T>
struct Chunk {
  const T* keys[kChunkTiles];
  const T* values[kChunkTiles];
  const T* next_keys[kChunkTiles];
  const float *key_scales, *value_scales;
  int64_t size, stride;
};

// A row of queries between chunks: what the softmax of the keys so far, without its division, makes
// of their values [width], then the largest score, then the sum of the exponentials.
// https://arxiv.org/abs/1805.02867, https://arxiv.org/abs/2205.14135
struct State {
  float* out;
  int64_t width;

  float& largest() const { return out[width]; }
  float& total() const { return out[width + 1]; }
};

// Floats from one state to the next.
PENSTOCK_INLINE int64_t state_stride(int64_t width) { return width + kLanes; }

}  // namespace penstock::PENSTOCK_ISA
