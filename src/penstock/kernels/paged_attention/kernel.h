#pragma once

#include <cstdint>

#include "../cpu/declare.h"
#include "../kv_cache/layer.h"

namespace penstock {

// Softmax runs over ranges of keys, at most so long, that begin at multiples of it; their results
// are merged in order. These are facts of a key's position alone, so that a query's result is the
// same however its prompt was cut and whoever computes which range.
inline constexpr int kRangeKeys = 512;

// Neighbouring tokens of one sequence, all query heads of one key-value head, some ranges of keys.
struct AttentionItem {
  int64_t tiles;    // the sequence's first entry in the plan's tiles
  int64_t row;      // the first token's row in the step
  int64_t partial;  // where the results of the ranges go, in rows of `partials`; -1: merged, to `out`
  int32_t num_tokens, first_position, kv_head, first_range, end_range;
};

// The ranges of one group of tokens that were computed apart, to be merged in order.
struct AttentionMerge {
  int64_t row, partial;
  int32_t num_tokens, kv_head, num_ranges;
};

struct PagedAttentionArgs {
  const float* query;  // [T, H, D], rows query_stride apart
  float* out;          // [T, H, D]
  const LayerKV* cache;
  const int32_t* tiles;  // every sequence's tiles in order, one sequence after the other
  const AttentionItem* items;
  const AttentionMerge* merges;
  const float* key_bias;  // [H, max_positions], or null
  const float* sinks;     // [H], or null
  int64_t query_stride, num_items, num_merges, num_partials, max_positions;
  int32_t num_heads, max_tokens;  // max_tokens: the largest item's
  int32_t window;                 // 0: none
  float scale, soft_cap;          // soft_cap: 0: none
};

PENSTOCK_FOR_EACH_ISA(void paged_attention(const PagedAttentionArgs& args))

}  // namespace penstock
