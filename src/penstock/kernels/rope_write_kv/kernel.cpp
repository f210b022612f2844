#include "kernel.h"

#include "../cpu/threads.h"
#include "../kv_cache/elements.h"
#include "../norm/rows.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// The loads and stores of a row's vectors, the last of which may be short.
template <class F>
PENSTOCK_INLINE void for_vectors(int64_t width, F f) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) f(i, kLanes);
  if (i < width) f(i, static_cast<int>(width - i));
}

PENSTOCK_INLINE Floats load_some(const float* from, int n) {
  return n == kLanes ? load<Floats>(from) : load_first<Floats>(from, n);
}

PENSTOCK_INLINE void store_some(float* to, Floats v, int n) {
  n == kLanes ? store(to, v) : store_first(to, v, n);
}

void rotate(float* head, const float* cos, const float* sin, int64_t half) {
  for_vectors(half, [&](int64_t i, int n) {
    const Floats first = load_some(head + i, n), second = load_some(head + half + i, n);
    const Floats c = load_some(cos + i, n), s = load_some(sin + i, n);
    store_some(head + i, first * c - second * s, n);
    store_some(head + half + i, second * c + first * s, n);
  });
}

// What the elements of a head are divided by to fit the cache's type, and how.
struct Scaling {
  float scale, inverse;
};

// A scale too small to have an inverse counts as 0: every element would round to nothing.
Scaling scaling_of(const float* head, int64_t width) {
  Floats most{};
  for_vectors(width, [&](int64_t i, int n) {
    most = maximum(most, magnitude(load_some(head + i, n)));
  });
  const float scale = largest(most) / 127.0f;
  if (scale < 1.17549435e-38f) return {0.0f, 0.0f};
  return {scale, 1.0f / scale};
}

// One token's place in a layer's cache: an element of its key every `kTileTokens`, its value dense.
template <class T>
struct Place {
  T *key, *value;
  float *key_scale, *value_scale;

  Place(const LayerKV& cache, int64_t slot, int64_t head) {
    const int64_t tile = slot / kTileTokens * cache.num_kv_heads + head, token = slot % kTileTokens;
    const int64_t start = tile * cache.head_dim * kTileTokens;
    key = static_cast<T*>(cache.keys) + start + token;
    value = static_cast<T*>(cache.values) + start + token * cache.head_dim;
    key_scale = cache.key_scales + tile * kTileTokens + token;
    value_scale = cache.value_scales + tile * kTileTokens + token;
  }
};

template <class T>
void write(const float* from, int64_t width, T* to, int64_t stride, float* scale) {
  Scaling scaling{1.0f, 1.0f};
  if constexpr (sizeof(T) == 1) {
    scaling = scaling_of(from, width);
    *scale = scaling.scale;
  }
  for_vectors(width, [&](int64_t i, int n) {
    T rounded[kLanes];
    store_rounded(rounded, load_some(from + i, n) * scaling.inverse);
    if (stride == 1) {
      __builtin_memcpy(to + i, rounded, n * sizeof(T));
    } else {
      for (int lane = 0; lane < n; ++lane) to[(i + lane) * stride] = rounded[lane];
    }
  });
}

template <class T>
void token(const RopeWriteKVArgs& a, int64_t index) {
  const int64_t num_kv_heads = a.cache->num_kv_heads, width = a.cache->head_dim;
  const int64_t num_turned = a.num_heads + num_kv_heads;
  float* heads = a.heads + index * (num_turned + num_kv_heads) * width;
  const int64_t slot = a.slots[index];
  if (slot < 0 || slot >= a.cache->num_tiles * kTileTokens) {
    __atomic_store_n(a.bad_slot, slot, __ATOMIC_RELAXED);
    return;
  }
  for (int64_t n = 0; n < num_turned; ++n) {
    float* head = heads + n * width;
    if (a.norm_weight) {
      normalise_row(head, a.norm_weight + n * width, a.norm_bias ? a.norm_bias + n * width : nullptr,
                    a.eps, width, head);
    }
    if (a.cos) rotate(head, a.cos + index * a.half, a.sin + index * a.half, a.half);
  }
  for (int64_t n = 0; n < num_kv_heads; ++n) {
    const float* key = heads + (a.num_heads + n) * width;
    const Place<T> place(*a.cache, slot, n);
    write(key, width, place.key, kTileTokens, place.key_scale);
    write(key + num_kv_heads * width, width, place.value, 1, place.value_scale);
  }
}

template <class T>
void tokens(const RopeWriteKVArgs& args) {
  // Neighbours in a tile share its cache lines, so they go to one thread, if there is work for all.
  const int64_t share = args.num_tokens / (2 * num_threads());
  const int64_t per_task = share < 1 ? 1 : share > kTileTokens ? kTileTokens : share;
  parallel((args.num_tokens + per_task - 1) / per_task, [&](int64_t task) {
    const int64_t end = (task + 1) * per_task < args.num_tokens ? (task + 1) * per_task : args.num_tokens;
    for (int64_t index = task * per_task; index < end; ++index) token<T>(args, index);
  });
}

}  // namespace

void rope_write_kv(const RopeWriteKVArgs& args) {
  switch (args.cache->type) {
    case KVType::float32: return tokens<float>(args);
    case KVType::bfloat16: return tokens<BFloat16>(args);
    case KVType::float16: return tokens<Float16>(args);
    case KVType::int8: return tokens<int8_t>(args);
  }
}

}  // namespace penstock::PENSTOCK_ISA
