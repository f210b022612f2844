// Softmax of one row, chunk by chunk and range by range. Never inlined: one piece of machine code
// rounds in one way, wherever it is called from.
#pragma once

#include "chunk.h"

namespace penstock::PENSTOCK_ISA {

// Which of a chunk's keys a row sees, first to end, and which scores were computed, from to to.
struct Seen {
  int first, end, from, to;
  const float* bias;  // of the chunk's keys, as many as bias_keys; or null
  int64_t bias_keys;
};

[[maybe_unused]] PENSTOCK_INLINE float exponential_of(float x) { return exponential(broadcast(x))[0]; }

PENSTOCK_INLINE Floats only_seen(Floats scores, int key, const Seen& seen) {
  static constexpr int32_t kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Ints position = load<Ints>(kNumbers) + key;
  const Ints visible = (position >= seen.first) & (position < seen.end);
  return visible ? scores : broadcast(-__builtin_inff());
}

// Scores become what their values count for, 0 where the row sees no key, and the state follows.
[[gnu::noinline]] static void softmax(float* scores, const Seen& seen, const float* key_scales,
                                      const float* value_scales, State state) {
  Floats most = broadcast(-__builtin_inff());
  for (int key = seen.from; key < seen.to; key += kLanes) {
    Floats v = load<Floats>(scores + key);
    if (key_scales) v *= load<Floats>(key_scales + key);
    if (seen.bias) {
      const int64_t left = seen.bias_keys - key;
      v += left >= kLanes ? load<Floats>(seen.bias + key)
                          : load_first<Floats>(seen.bias + key, left > 0 ? static_cast<int>(left) : 0);
    }
    if (key < seen.first || key + kLanes > seen.end) v = only_seen(v, key, seen);
    store(scores + key, v);
    most = maximum(v, most);
  }
  const float before = state.largest(), found = largest(most), now = found > before ? found : before;
  const float shift = now == -__builtin_inff() ? 0.0f : now;
  Floats shares{};
  for (int key = seen.from; key < seen.to; key += kLanes) {
    Floats share = exponential(load<Floats>(scores + key) - shift);
    shares += share;
    if (value_scales) share *= load<Floats>(value_scales + key);
    store(scores + key, share);
  }
  float correction = 1.0f;
  if (now > before) {
    correction = exponential_of(before - shift);
    for (int64_t i = 0; i < state.width; i += kLanes) {
      store(state.out + i, load<Floats>(state.out + i) * correction);
    }
  }
  state.largest() = now;
  state.total() = state.total() * correction + sum(shares);
}

PENSTOCK_INLINE void clear(State state) {
  for (int64_t i = 0; i < state.width; i += kLanes) store(state.out + i, Floats{});
  state.largest() = -__builtin_inff();
  state.total() = 0.0f;
}

// What a later range found joins what the earlier ones did.
[[gnu::noinline]] static void merge(State state, State later) {
  const float before = state.largest(), found = later.largest();
  if (found == -__builtin_inff()) return;
  if (before == -__builtin_inff()) {
    __builtin_memcpy(state.out, later.out, state_stride(state.width) * sizeof(float));
    return;
  }
  const float now = found > before ? found : before;
  const float ours = exponential_of(before - now), theirs = exponential_of(found - now);
  for (int64_t i = 0; i < state.width; i += kLanes) {
    store(state.out + i, load<Floats>(state.out + i) * ours + load<Floats>(later.out + i) * theirs);
  }
  state.largest() = now;
  state.total() = state.total() * ours + later.total() * theirs;
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
