// Rounding to 8 and 4 bits, number for number as kernels/quantization.py does it.
#pragma once

#include "../cpu/simd.h"

namespace penstock::PENSTOCK_ISA {

inline constexpr float kSmallestNormal = 1.17549435e-38f;

struct Scale {
  float value, inverse;
};

PENSTOCK_INLINE Scale scale_of(float value) {
  if (!(value >= kSmallestNormal || value <= -kSmallestNormal)) return {0.0f, 0.0f};
  return {value, 1.0f / value};
}

PENSTOCK_INLINE float largest_magnitude(const float* x, int64_t count) {
  Floats found[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      found[p] = maximum(found[p], magnitude(load<Floats>(x + i + p * kLanes)));
    }
  }
  for (; i < count; i += kLanes) {
    const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
    found[0] = maximum(found[0], magnitude(load_first<Floats>(x + i, n)));
  }
  return largest(maximum(maximum(found[0], found[1]), maximum(found[2], found[3])));
}

// x[i] * inverse to the nearest integer, halves to even, within [low, high].
template <class T>
PENSTOCK_INLINE void round_all(const float* x, int64_t count, float inverse, int low, int high, T* to) {
  typedef T Narrow __attribute__((vector_size(kLanes * sizeof(T))));
  for (int64_t i = 0; i < count; i += kLanes) {
    const int n = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
    const Floats v = n == kLanes ? load<Floats>(x + i) : load_first<Floats>(x + i, n);
    Ints r = round_to_ints(v * inverse);
    r = r < low ? broadcast_int(low) : r;
    r = r > high ? broadcast_int(high) : r;
    const Narrow narrow = __builtin_convertvector(r, Narrow);
    n == kLanes ? store(to + i, narrow) : store_first(to + i, narrow, n);
  }
}

}  // namespace penstock::PENSTOCK_ISA
