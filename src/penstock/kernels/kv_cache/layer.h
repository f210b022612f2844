// One layer's paged cache, as kernels see it.
#pragma once

#include <cstdint>

namespace penstock {

// The cache is a row of tiles of 16 tokens; a block is one tile, or several in a row.
inline constexpr int kTileTokens = 16;

enum class KVType : int { float32, bfloat16, float16, int8 };

// Keys stand transposed in a tile, so that the scores of 16 keys come out as vectors, without sums
// across lanes.
struct LayerKV {
  void* keys;           // [num_tiles, K, D, 16]
  void* values;         // [num_tiles, K, 16, D]
  float* key_scales;    // [num_tiles, K, 16], what an int8 element is to be multiplied by; or null
  float* value_scales;  // likewise
  int64_t num_tiles, num_kv_heads, head_dim;
  KVType type;
};

}  // namespace penstock
