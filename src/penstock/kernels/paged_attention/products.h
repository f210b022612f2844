// The two matrix products of attention, R rows of queries at a time, accumulated in registers. The
// sum for one row and key, or row and element, is one chain of multiply-adds in a fixed order: it
// does not depend on R, nor on what else is computed beside it.
#pragma once

#include "../kv_cache/elements.h"
#include "chunk.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr int kMostRows = 6;

// Vectors beside each other: enough accumulators to hide the latency of a multiply-add, and no more
// than there are registers for.
template <int R>
inline constexpr int kVectors = kLanes == 16 ? 4 : R > 3 ? 2 : R > 1 ? 4 : 8;

// Begin to bring memory near that will be read soon.
PENSTOCK_INLINE void fetch(const void* memory) { __builtin_prefetch(memory, 0, 2); }

// sums[r][v] += rows[r] * columns[v], with columns, or rows where these are fewer, in registers.
template <int R, int V, class Rows, class Columns>
PENSTOCK_INLINE void add_products(Floats (&sums)[R][V], Rows rows, Columns columns) {
  if constexpr (R < V) {
    Floats row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = broadcast(rows(r));
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const Floats column = load_floats(columns(v));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sums[r][v] += row[r] * column;
    }
  } else {
    Floats column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) column[v] = load_floats(columns(v));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats row = broadcast(rows(r));
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sums[r][v] += row * column[v];
    }
  }
}

// scores [R, kChunkKeys], from vector `first` on, of query [D, R]. kFetch: fetch the values.
template <int R, bool kFetch, class T>
PENSTOCK_INLINE void score_vectors(const float* query, const Chunk<T>& chunk, int first, float* scores) {
  constexpr int V = kVectors<R>;
  Floats sums[R][V] = {};
  const T* keys[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const int key = (first + v) * kLanes;
    keys[v] = chunk.keys[key / kTileTokens] + key % kTileTokens;
  }
  for (int64_t d = 0; d < chunk.size; ++d) {
#pragma GCC unroll 8
    for (int v = 0; kFetch && v < V; v += kTileTokens / kLanes) {
      fetch(chunk.values[(first + v) * kLanes / kTileTokens] + d * kTileTokens);
    }
    add_products(sums, [&](int r) { return query[d * R + r]; },
                 [&](int v) { return keys[v] + d * kTileTokens; });
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(scores + r * kChunkKeys + (first + v) * kLanes, sums[r][v]);
  }
}

// Add to V vectors of each row's state what keys begin to end make of their values.
template <int R, int V, bool kFetch, class T>
PENSTOCK_INLINE void add_vectors(const float* shares, const Chunk<T>& chunk, int begin, int end,
                                 int64_t element, float* states, int64_t stride) {
  constexpr int kLine = 64 / sizeof(T);
  Floats sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[r][v] = load<Floats>(states + r * stride + element + v * kLanes);
  }
  for (int key = begin; key < end;) {
    const int tile = key / kTileTokens, tile_end = (tile + 1) * kTileTokens;
    const T* values = chunk.values[tile] + key % kTileTokens * chunk.stride + element;
    for (const int last = tile_end < end ? tile_end : end; key < last; ++key) {
      add_products(sums, [&](int r) { return shares[r * kChunkKeys + key]; },
                   [&](int v) { return values + v * kLanes; });
      const int64_t ahead = element * kTileTokens + key % kTileTokens * V * kLanes;
#pragma GCC unroll 8
      for (int v = 0; kFetch && v < V * kLanes; v += kLine) fetch(chunk.next_keys[tile] + ahead + v);
      values += chunk.stride;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(states + r * stride + element + v * kLanes, sums[r][v]);
  }
}

// states [R, stride] += shares [R, kChunkKeys] times the values of keys begin to end. kFetch: fetch
// the next chunk's keys.
template <int R, bool kFetch, class T>
PENSTOCK_INLINE void add_values(const float* shares, const Chunk<T>& chunk, int begin, int end,
                                float* states, int64_t stride) {
  constexpr int V = kVectors<R>;
  int64_t element = 0;
  for (; element + V * kLanes <= chunk.stride; element += V * kLanes) {
    add_vectors<R, V, kFetch>(shares, chunk, begin, end, element, states, stride);
  }
  for (; element < chunk.stride; element += kLanes) {
    add_vectors<R, 1, kFetch>(shares, chunk, begin, end, element, states, stride);
  }
}

}  // namespace penstock::PENSTOCK_ISA
