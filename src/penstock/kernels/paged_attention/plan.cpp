#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "../cpu/threads.h"

namespace penstock {
namespace {

// Rows of queries that share one look at keys and values: enough to make up for fetching and
// converting these, few enough for all of their states to stay in the L2 cache. Kernels take six
// rows at a time, so it is a multiple of that where it can be.
constexpr int32_t kItemRows = 96, kRowsAtATime = 6;
// An item is cut into ranges of keys where it is more than this part of a thread's share.
constexpr int64_t kItemsPerThread = 4;

int64_t ceil_div(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

void refuse(int64_t sequence, const char* why) {
  throw std::invalid_argument("sequence " + std::to_string(sequence) + " " + why);
}

struct Sequence {
  int32_t row, num_tokens, context_len;
};

Sequence sequence_at(const AttentionFacts& facts, int64_t index) {
  const int32_t row = facts.cu_seqlens_q[index], tokens = facts.cu_seqlens_q[index + 1] - row;
  const int32_t context = facts.context_lens[index];
  if (tokens < 0) refuse(index, "has fewer than no tokens");
  if (tokens == 0) return {row, 0, 0};
  if (context < tokens) refuse(index, "has more tokens than context");
  if (context > facts.max_blocks * facts.tiles_per_block * kTileTokens) {
    refuse(index, "has a longer context than its blocks hold");
  }
  if (facts.key_bias && context > facts.max_positions) {
    refuse(index, "has a longer context than there are positions with a bias");
  }
  return {row, tokens, context};
}

int32_t first_key(const AttentionFacts& facts, int32_t position) {
  return facts.window ? std::max(0, position + 1 - facts.window) : 0;
}

// The sequence's tiles; those before any key it sees may be anything, and become 0.
void add_tiles(AttentionPlan& plan, int64_t index, const Sequence& sequence) {
  const AttentionFacts& facts = plan.facts;
  const int64_t* blocks = facts.block_table + index * facts.max_blocks;
  const int32_t first = first_key(facts, sequence.context_len - sequence.num_tokens) / kTileTokens;
  const int64_t count = ceil_div(sequence.context_len, kTileTokens);
  const int64_t start = static_cast<int64_t>(plan.tiles.size());
  plan.tiles.resize(start + count);
  for (int64_t tile = first; tile < count; ++tile) {
    const int64_t block = blocks[tile / facts.tiles_per_block];
    const int64_t number = block * facts.tiles_per_block + tile % facts.tiles_per_block;
    if (block < 0 || number > INT32_MAX) refuse(index, "names a block that cannot be");
    plan.tiles[start + tile] = static_cast<int32_t>(number);
    plan.max_tile = std::max(plan.max_tile, static_cast<int32_t>(number));
  }
}

void add_items(AttentionPlan& plan, const Sequence& sequence, int64_t tiles) {
  const AttentionFacts& facts = plan.facts;
  const int32_t most = std::max(1, kItemRows / (facts.num_heads / facts.num_kv_heads));
  const int32_t piece = most < kRowsAtATime ? most : most / kRowsAtATime * kRowsAtATime;
  for (int32_t done = 0; done < sequence.num_tokens; done += piece) {
    AttentionItem item{};
    item.tiles = tiles;
    item.row = sequence.row + done;
    item.partial = -1;
    item.num_tokens = std::min(piece, sequence.num_tokens - done);
    item.first_position = sequence.context_len - sequence.num_tokens + done;
    item.first_range = first_key(facts, item.first_position) / kRangeKeys;
    item.end_range = static_cast<int32_t>(ceil_div(item.first_position + item.num_tokens, kRangeKeys));
    plan.max_tokens = std::max(plan.max_tokens, item.num_tokens);
    for (item.kv_head = 0; item.kv_head < facts.num_kv_heads; ++item.kv_head) {
      plan.items.push_back(item);
    }
  }
}

// Proportional to the time an item takes: what a key costs, and a part of it for each of its rows.
int64_t cost(const AttentionPlan& plan, const AttentionItem& item) {
  const int64_t end = item.first_position + item.num_tokens;
  const int64_t first = std::max(first_key(plan.facts, item.first_position), item.first_range * kRangeKeys);
  const int64_t keys = std::min<int64_t>(end, item.end_range * int64_t{kRangeKeys}) - first;
  return keys * (4 + item.num_tokens * (plan.facts.num_heads / plan.facts.num_kv_heads));
}

// Cut the items that would keep one thread busy while the others have nothing left.
void split_long(AttentionPlan& plan) {
  const int threads = num_threads();
  if (threads == 1) return;
  int64_t total = 0;
  for (const AttentionItem& item : plan.items) total += cost(plan, item);
  const int64_t most = std::max<int64_t>(1, total / (threads * kItemsPerThread));
  std::vector<AttentionItem> items;
  for (const AttentionItem& item : plan.items) {
    const int32_t ranges = item.end_range - item.first_range;
    const int64_t wanted = std::min<int64_t>(ranges, ceil_div(cost(plan, item), most));
    if (wanted <= 1) {
      items.push_back(item);
      continue;
    }
    const int64_t rows = int64_t{item.num_tokens} * (plan.facts.num_heads / plan.facts.num_kv_heads);
    plan.merges.push_back({item.row, plan.num_partials, item.num_tokens, item.kv_head, ranges});
    for (int64_t part = 0; part < wanted; ++part) {
      AttentionItem cut = item;
      cut.first_range = static_cast<int32_t>(item.first_range + part * ranges / wanted);
      cut.end_range = static_cast<int32_t>(item.first_range + (part + 1) * ranges / wanted);
      cut.partial = plan.num_partials + (cut.first_range - item.first_range) * rows;
      items.push_back(cut);
    }
    plan.num_partials += ranges * rows;
  }
  plan.items = std::move(items);
}

}  // namespace

AttentionPlan plan_attention(const AttentionFacts& facts) {
  if (facts.num_kv_heads <= 0 || facts.head_dim <= 0 || facts.num_heads % facts.num_kv_heads != 0 ||
      facts.num_heads <= 0) {
    throw std::invalid_argument("every key-value head must serve equally many query heads");
  }
  AttentionPlan plan;
  plan.facts = facts;
  for (int64_t index = 0; index < facts.num_sequences; ++index) {
    const Sequence sequence = sequence_at(facts, index);
    if (sequence.num_tokens == 0) continue;
    const int64_t tiles = static_cast<int64_t>(plan.tiles.size());
    add_tiles(plan, index, sequence);
    add_items(plan, sequence, tiles);
  }
  plan.num_tokens = facts.cu_seqlens_q[facts.num_sequences];
  split_long(plan);
  std::stable_sort(plan.items.begin(), plan.items.end(), [&](const auto& one, const auto& other) {
    return cost(plan, one) > cost(plan, other);
  });
  return plan;
}

}  // namespace penstock
