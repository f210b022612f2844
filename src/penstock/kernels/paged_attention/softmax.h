// Softmax of rows, chunk by chunk and range by range. Scores are in units of log 2, so that shares
// are powers of two. Never inlined: one piece of machine code rounds in one way, wherever it is
// called from.
#pragma once

#include "../activation/functions.h"
#include "chunk.h"
#include "products.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kNothing = -__builtin_inff();

// How far a score may rise above the one that a state is relative to, before the state is adapted.
// That is rarely needed, and 2^10 times as much is nothing to a float.
inline constexpr float kSlack = 10.0f;

// One row of a chunk: the keys it sees, first to end, and the state it brings.
struct Row {
  int first, end;
  const float* bias;  // of the chunk's keys, as many as left; or null
  int64_t left;
  State state;
};

// 2^x within 2 units in the last place, exactly 1 of 0, and 0 below -126. x <= 2^7.
PENSTOCK_INLINE Floats power_of_two(Floats x) {
  const Floats rounder = broadcast(12582912.0f);  // 1.5 * 2^23: its last bits are a whole number
  const Floats shifted = x + rounder;
  const Floats r = x - (shifted - rounder);
  Floats p = broadcast(1.326472731e-3f);
  p = p * r + 9.671512991e-3f;
  p = p * r + 5.550733581e-2f;
  p = p * r + 2.402224243e-1f;
  p = p * r + 6.931470037e-1f;
  p = p * r + 1.0f;
  const Ints exponent = reinterpret_cast<Ints>(shifted) << 23;
  const Floats power = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + exponent);
  return x < -126.0f ? Floats{} : power;
}

PENSTOCK_INLINE float power_of_two(float x) { return power_of_two(broadcast(x))[0]; }

PENSTOCK_INLINE Floats only_seen(Floats scores, int key, const Row& row) {
  static constexpr int32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Ints position = load<Ints>(kNumbers) + key;
  const Ints visible = (position >= row.first) & (position < row.end);
  return visible ? scores : broadcast(kNothing);
}

// A row's scores, from `from` to `to`, become cap * tanh(score / cap), within 3e-7 of the cap
// (https://arxiv.org/abs/2408.00118). Those of int8 keys get their scales before, and are done with
// them. A pass of its own, so that softmax is no slower where there is no cap.
[[gnu::noinline]] static void squeeze(float* scores, int from, int to, const float* key_scales,
                                      float cap) {
  const float inverse = 1.0f / cap;
  for (int key = from; key < to; key += kLanes) {
    Floats v = load<Floats>(scores + key);
    if (key_scales) v *= load<Floats>(key_scales + key);
    store(scores + key, hyperbolic_tangent(v * inverse) * cap);
  }
}

// Scale, shift and hide what needs it; the largest score, lane by lane.
PENSTOCK_INLINE Floats complete(float* scores, int from, int to, const Row& row, const float* scales) {
  Floats most = broadcast(kNothing);
  if (!scales && !row.bias && row.first <= from && row.end >= to) {
    for (int key = from; key < to; key += kLanes) most = maximum(load<Floats>(scores + key), most);
    return most;
  }
  for (int key = from; key < to; key += kLanes) {
    Floats v = load<Floats>(scores + key);
    if (scales) v *= load<Floats>(scales + key);
    if (row.bias) {
      const int64_t left = row.left - key;
      const int some = static_cast<int>(left > 0 ? left : 0);
      v += (left < kLanes ? load_first<Floats>(row.bias + key, some) : load<Floats>(row.bias + key)) * kLog2E;
    }
    v = only_seen(v, key, row);
    store(scores + key, v);
    most = maximum(v, most);
  }
  return most;
}

// Let a state be relative to a score that is near the largest.
PENSTOCK_INLINE void adapt(State state, float found) {
  const float before = state.largest();
  if (!(found > before + kSlack)) return;
  state.largest() = found;
  if (before == kNothing) return;
  const float factor = power_of_two(before - found);
  state.total() *= factor;
  for (int64_t i = 0; i < state.width; i += kLanes) {
    store(state.out + i, load<Floats>(state.out + i) * factor);
  }
}

// scores [count, kChunkKeys], of which those from `from` to `to` were computed, become what the
// keys' values count for, 0 where a row does not see the key; and the states follow.
[[gnu::noinline]] static void softmax(float* scores, int from, int to, const Row* rows, int count,
                                      const float* key_scales, const float* value_scales) {
  Floats most[kMostRows];
  for (int r = 0; r < count; ++r) {
    most[r] = complete(scores + r * kChunkKeys, from, to, rows[r], key_scales);
  }
  for (int r = 0; r < count; ++r) adapt(rows[r].state, largest(most[r]));
  for (int r = 0; r < count; ++r) {
    float* row = scores + r * kChunkKeys;
    const float nearly_largest = rows[r].state.largest();
    const float shift = nearly_largest == kNothing ? 0.0f : nearly_largest;
    Floats shares{};
    for (int key = from; key < to; key += kLanes) {
      Floats share = power_of_two(load<Floats>(row + key) - shift);
      shares += share;
      if (value_scales) share *= load<Floats>(value_scales + key);
      store(row + key, share);
    }
    rows[r].state.total() += sum(shares);
  }
}

PENSTOCK_INLINE void clear(State state) {
  for (int64_t i = 0; i < state.width; i += kLanes) store(state.out + i, Floats{});
  state.largest() = kNothing;
  state.total() = 0.0f;
}

// What a later range found joins what the earlier ones did.
[[gnu::noinline]] static void merge(State state, State later) {
  const float before = state.largest(), found = later.largest();
  if (found == kNothing) return;
  if (before == kNothing) {
    __builtin_memcpy(state.out, later.out, state_stride(state.width) * sizeof(float));
    return;
  }
  const float now = found > before ? found : before;
  const float ours = power_of_two(before - now), theirs = power_of_two(found - now);
  for (int64_t i = 0; i < state.width; i += kLanes) {
    store(state.out + i, load<Floats>(state.out + i) * ours + load<Floats>(later.out + i) * theirs);
  }
  state.largest() = now;
  state.total() = state.total() * ours + later.total() * theirs;
}

// One more score, of no key and with no value, to share with.
// https://arxiv.org/abs/2309.17453, https://arxiv.org/abs/2508.10925
[[gnu::noinline]] static void add_sink(State state, float score) {
  adapt(state, score);
  state.total() += power_of_two(score - state.largest());
}

// The division that was put off, and the result [size].
[[gnu::noinline]] static void finish(State state, float* out, int64_t size) {
  const float inverse = 1.0f / state.total();
  for (int64_t i = 0; i < size; i += kLanes) {
    const Floats v = load<Floats>(state.out + i) * inverse;
    size - i < kLanes ? store_first(out + i, v, static_cast<int>(size - i)) : store(out + i, v);
  }
}

}  // namespace penstock::PENSTOCK_ISA
