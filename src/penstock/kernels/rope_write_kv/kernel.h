#pragma once

#include <cstdint>

#include "../cpu/declare.h"
#include "../kv_cache/layer.h"

namespace penstock {

// What rope_write_kv/reference.py does, one pass over the heads of each token.
struct RopeWriteKVArgs {
  float* heads;               // [T, H + 2 * K, D]: queries, keys, values; overwritten
  const float* norm_weight;   // [H + K, D], or null for no norm
  const float* norm_bias;     // likewise, or null for RMS
  const float *cos, *sin;     // [T, half], or null for no rotation
  const int64_t* slots;       // [T]
  const LayerKV* cache;
  int64_t* bad_slot;          // a slot that the cache does not have, if there is one; left alone if not
  int64_t num_tokens, num_heads, half;
  float eps;
};

PENSTOCK_FOR_EACH_ISA(void rope_write_kv(const RopeWriteKVArgs& args))

}  // namespace penstock
