#include "kernel.h"

#include "../cpu/threads.h"
#include "products.h"
#include "softmax.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// So few rows wait for memory rather than for arithmetic: they fetch ahead, and convert what they
// read in registers. More rows share one conversion, and find what they read in the L2 cache.
constexpr int kFewRows = 3 * kMostRows;

int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// What is the same for all items of a step.
struct Step {
  const PagedAttentionArgs& a;
  int64_t size, width, stride;  // of a head, of its padded form, of its state
  int group;                    // query heads to a key-value head
  float cap;                    // of scores, in their units; 0: none
  float* partials;

  explicit Step(const PagedAttentionArgs& args)
      : a(args),
        size(args.cache->head_dim),
        width(rounded_up(size, kLanes)),
        stride(state_stride(width)),
        group(args.num_heads / static_cast<int>(args.cache->num_kv_heads)),
        cap(args.soft_cap * kLog2E),
        partials(nullptr) {}

  int64_t max_rows() const { return a.max_tokens * group; }
  State state(float* states, int64_t row) const { return {states + row * stride, width}; }

  // The result of a row, once all ranges are in its state. Only here does its head's sink join them:
  // however the keys were cut, it counts once, after all of them.
  void write(State state, int64_t token, int64_t head) const {
    if (a.sinks) add_sink(state, a.sinks[head] * kLog2E);
    finish(state, a.out + (token * a.num_heads + head) * size, size);
  }
};

// One thread's memory.
struct Workspace {
  float *query, *scores, *states, *merged, *keys, *values, *scales;

  static int64_t floats(const Step& s) {
    return s.max_rows() * (s.width + 2 * s.stride) + kMostRows * kChunkKeys +
           kChunkKeys * (2 * s.width + 2) + 16;
  }

  Workspace(const Step& s, float* memory) {
    const auto take = [&](int64_t count) {
      float* part = memory;
      memory += rounded_up(count, 16);
      return part;
    };
    query = take(s.max_rows() * s.width);
    states = take(s.max_rows() * s.stride);
    merged = take(s.max_rows() * s.stride);
    scores = take(kMostRows * kChunkKeys);
    keys = take(kChunkKeys * s.width);
    values = take(kChunkKeys * s.width);
    scales = take(kChunkKeys * 2);
  }
};

// Neighbouring rows of an item that are computed together, at most kMostRows.
struct Group {
  int first, rows;
};

// As many groups of six as there are, and the rest.
Group group_at(int num_rows, int index) {
  const int first = index * kMostRows;
  return {first, num_rows - first < kMostRows ? num_rows - first : kMostRows};
}

// Some tokens of one sequence and one key-value head, and the keys they see. T: the cache's elements;
// U: those of a chunk that was perhaps converted.
struct Item {
  const Step& s;
  const AttentionItem& item;
  const Workspace& w;
  int num_rows, num_groups;
  int64_t end, last_tile;

  Item(const Step& step, const AttentionItem& which, const Workspace& workspace)
      : s(step),
        item(which),
        w(workspace),
        num_rows(which.num_tokens * step.group),
        num_groups((num_rows + kMostRows - 1) / kMostRows),
        end(which.first_position + which.num_tokens),
        last_tile((end - 1) / kTileTokens) {}

  int64_t position(int row) const { return item.first_position + row / s.group; }
  int64_t first_key(int row) const { return s.a.window ? max(0, position(row) + 1 - s.a.window) : 0; }
  int head(int row) const { return item.kv_head * s.group + row % s.group; }

  Row row_of(int row, int64_t start) const {
    const float* bias = s.a.key_bias ? s.a.key_bias + head(row) * s.a.max_positions + start : nullptr;
    return {static_cast<int>(max(first_key(row) - start, 0)),
            static_cast<int>(min(position(row) + 1 - start, kChunkKeys)), bias,
            s.a.max_positions - start, s.state(w.states, row)};
  }

  // Queries, scaled, group by group: within a group [D, rows].
  void pack_query() const {
    const float scale = s.a.scale * kLog2E;
    for (int index = 0; index < num_groups; ++index) {
      const Group group = group_at(num_rows, index);
      float* packed = w.query + group.first * s.size;
      for (int r = 0; r < group.rows; ++r) {
        const int row = group.first + r;
        const float* from = s.a.query + (item.row + row / s.group) * s.a.query_stride + head(row) * s.size;
        for (int64_t d = 0; d < s.size; ++d) packed[d * group.rows + r] = from[d] * scale;
      }
    }
  }

  template <class T>
  Chunk<T> chunk_at(int64_t key) const {
    Chunk<T> chunk{{}, {}, {}, nullptr, nullptr, s.size, s.size};
    const LayerKV& cache = *s.a.cache;
    const bool scaled = sizeof(T) == 1;
    for (int t = 0; t < kChunkTiles; ++t) {
      const int64_t number = s.a.tiles[item.tiles + min(key / kTileTokens + t, last_tile)];
      const int64_t tile = number * cache.num_kv_heads + item.kv_head;
      chunk.keys[t] = static_cast<const T*>(cache.keys) + tile * kTileTokens * s.size;
      const int64_t next = s.a.tiles[item.tiles + min(key / kTileTokens + kChunkTiles + t, last_tile)];
      chunk.next_keys[t] = static_cast<const T*>(cache.keys) +
                           (next * cache.num_kv_heads + item.kv_head) * kTileTokens * s.size;
      chunk.values[t] = static_cast<const T*>(cache.values) + tile * kTileTokens * s.size;
      if (scaled) {
        const auto bytes = kTileTokens * sizeof(float);
        __builtin_memcpy(w.scales + t * kTileTokens, cache.key_scales + tile * kTileTokens, bytes);
        __builtin_memcpy(w.scales + kChunkKeys + t * kTileTokens,
                         cache.value_scales + tile * kTileTokens, bytes);
      }
    }
    if (scaled) chunk.key_scales = w.scales, chunk.value_scales = w.scales + kChunkKeys;
    return chunk;
  }

  template <class T>
  Chunk<float> converted(const Chunk<T>& from) const {
    Chunk<float> to{{}, {}, {}, from.key_scales, from.value_scales, s.size, s.width};
    for (int t = 0; t < kChunkTiles; ++t) {
      float* keys = w.keys + t * kTileTokens * s.width;
      float* values = w.values + t * kTileTokens * s.width;
      for (int64_t i = 0; i < s.size * kTileTokens; i += kLanes) {
        store(keys + i, load_floats(from.keys[t] + i));
      }
      for (int token = 0; token < kTileTokens; ++token) {
        const T* row = from.values[t] + token * s.size;
        int64_t i = 0;
        for (; i + kLanes <= s.size; i += kLanes) store(values + token * s.width + i, load_floats(row + i));
        if (i < s.size) {
          T rest[kLanes] = {};
          __builtin_memcpy(rest, row + i, (s.size - i) * sizeof(T));
          store(values + token * s.width + i, load_floats(rest));
        }
      }
      to.keys[t] = keys;
      to.values[t] = values;
    }
    return to;
  }

  Chunk<float> as_floats(const Chunk<float>& chunk, bool dense) const {
    return dense ? chunk : converted(chunk);
  }

  template <class T>
  Chunk<float> as_floats(const Chunk<T>& chunk, bool) const {
    return converted(chunk);
  }

  template <int R, bool kFetch, class U>
  void attend_group(const Chunk<U>& chunk, int first_row, int64_t start) const {
    constexpr int kStep = kVectors<R> * kLanes;
    const int begin = static_cast<int>(max(first_key(first_row) - start, 0));
    const int past = static_cast<int>(min(position(first_row + R - 1) + 1 - start, kChunkKeys));
    if (begin >= past) return;
    const int from = begin / kStep * kStep, to = static_cast<int>(rounded_up(past, kStep));
    for (int key = from; key < to; key += kStep) {
      score_vectors<R, kFetch>(w.query + first_row * s.size, chunk, key / kLanes, w.scores);
    }
    Row rows[R];
    for (int r = 0; r < R; ++r) rows[r] = row_of(first_row + r, start);
    const bool capped = s.cap > 0.0f;
    for (int r = 0; capped && r < R; ++r) {
      squeeze(w.scores + r * kChunkKeys, from, to, chunk.key_scales, s.cap);
    }
    softmax(w.scores, from, to, rows, R, capped ? nullptr : chunk.key_scales, chunk.value_scales);
    // What only some of the rows see is added row by row: what others' tokens hold, were it
    // infinite, reaches no row even as a multiple of 0.
    const int all_from = rows[R - 1].first, all_to = rows[0].end;
    const bool shared = all_from < all_to;
    for (int r = 0; r < R; ++r) {
      add_alone(r, chunk, rows[r].first, shared ? all_from : rows[r].end, rows[r].state);
    }
    if (!shared) return;
    float* states = w.states + first_row * s.stride;
    add_values<R, kFetch>(w.scores, chunk, all_from, all_to, states, s.stride);
    for (int r = 0; r < R; ++r) add_alone(r, chunk, all_to, rows[r].end, rows[r].state);
  }

  template <class U>
  [[gnu::noinline]] void add_alone(int r, const Chunk<U>& chunk, int begin, int past, State state) const {
    if (begin < past) add_values<1, false>(w.scores + r * kChunkKeys, chunk, begin, past, state.out, s.stride);
  }

  template <bool kFetch, class U>
  void attend(const Chunk<U>& chunk, int64_t start) const {
    for (int index = 0; index < num_groups; ++index) {
      const Group group = group_at(num_rows, index);
      switch (group.rows) {
        case 1: attend_group<1, kFetch>(chunk, group.first, start); break;
        case 2: attend_group<2, kFetch>(chunk, group.first, start); break;
        case 3: attend_group<3, kFetch>(chunk, group.first, start); break;
        case 4: attend_group<4, kFetch>(chunk, group.first, start); break;
        case 5: attend_group<5, kFetch>(chunk, group.first, start); break;
        default: attend_group<6, kFetch>(chunk, group.first, start); break;
      }
    }
  }

  // What the rows make of one range of keys, from nothing, in w.states.
  template <class T>
  void attend_range(int64_t range) const {
    for (int row = 0; row < num_rows; ++row) clear(s.state(w.states, row));
    const int64_t range_end = min(end, (range + 1) * kRangeKeys);
    const int64_t first = max(range * kRangeKeys, first_key(0)) / kChunkKeys * kChunkKeys;
    const bool few = num_rows <= kFewRows, dense = s.size == s.width;
    for (int64_t start = first; start < range_end; start += kChunkKeys) {
      const Chunk<T> chunk = chunk_at<T>(start);
      if (few && dense) {
        attend<true>(chunk, start);
      } else {
        attend<false>(as_floats(chunk, dense), start);
      }
    }
  }

  template <class T>
  void run() const {
    pack_query();
    const bool apart = item.partial >= 0;
    for (int64_t range = item.first_range; range < item.end_range; ++range) {
      attend_range<T>(range);
      float* target = w.merged;
      if (apart) target = s.partials + (item.partial + (range - item.first_range) * num_rows) * s.stride;
      if (apart || range == item.first_range) {
        __builtin_memcpy(target, w.states, num_rows * s.stride * sizeof(float));
        continue;
      }
      for (int row = 0; row < num_rows; ++row) merge(s.state(target, row), s.state(w.states, row));
    }
    for (int row = 0; row < num_rows && !apart; ++row) {
      s.write(s.state(w.merged, row), item.row + row / s.group, head(row));
    }
  }
};

void merge_apart(const Step& s, const AttentionMerge& m) {
  const int num_rows = m.num_tokens * s.group;
  for (int row = 0; row < num_rows; ++row) {
    const State state = s.state(s.partials, m.partial + row);
    for (int range = 1; range < m.num_ranges; ++range) {
      merge(state, s.state(s.partials, m.partial + static_cast<int64_t>(range) * num_rows + row));
    }
    s.write(state, m.row + row / s.group, m.kv_head * s.group + row % s.group);
  }
}

template <class T>
void attend_all(const Step& s) {
  const int64_t workers = min(num_threads(), s.a.num_items);
  const int64_t floats = rounded_up(Workspace::floats(s) + 7 * 16, 1024);
  float* memory = static_cast<float*>(scratch(0, workers * floats * sizeof(float)));
  int64_t next = 0;
  parallel(workers, [&](int64_t worker) {
    const Workspace workspace(s, memory + worker * floats);
    for (;;) {
      const int64_t index = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (index >= s.a.num_items) return;
      Item(s, s.a.items[index], workspace).run<T>();
    }
  });
}

}  // namespace

void paged_attention(const PagedAttentionArgs& args) {
  Step step(args);
  step.partials = static_cast<float*>(scratch(1, args.num_partials * step.stride * sizeof(float)));
  switch (args.cache->type) {
    case KVType::float32: attend_all<float>(step); break;
    case KVType::bfloat16: attend_all<BFloat16>(step); break;
    case KVType::float16: attend_all<Float16>(step); break;
    case KVType::int8: attend_all<int8_t>(step); break;
  }
  parallel(args.num_merges, [&](int64_t index) { merge_apart(step, args.merges[index]); });
}

}  // namespace penstock::PENSTOCK_ISA
