// A step's attention, cut into items for threads to take.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.h"

namespace penstock {

// What is known of a step's attention: its layout, and the facts of its layers.
struct AttentionFacts {
  const int32_t* cu_seqlens_q;  // [S + 1]
  const int32_t* context_lens;  // [S]
  const int64_t* block_table;   // [S, max_blocks]
  const float* key_bias;        // [H, max_positions], or null
  int64_t num_sequences, max_blocks, tiles_per_block, max_positions;
  int32_t num_heads, num_kv_heads, head_dim;
  int32_t window;  // 0: none
  float scale, soft_cap;  // soft_cap: 0: none
};

struct AttentionPlan {
  AttentionFacts facts;
  std::vector<int32_t> tiles;
  std::vector<AttentionItem> items;  // the largest first, so that all threads end together
  std::vector<AttentionMerge> merges;
  int64_t num_tokens = 0, num_partials = 0;
  int32_t max_tokens = 0, max_tile = -1;
};

// Throws std::invalid_argument for facts that contradict each other.
AttentionPlan plan_attention(const AttentionFacts& facts);

}  // namespace penstock
